"""$meta, $meta-add and $meta-delete: tags, profiles and labels without a new version (ST-60)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw
from sqlalchemy import delete, func, insert, not_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store import tables
from wardmesh_fhir_store.composites import Rows
from wardmesh_fhir_store.definitions import parameter_key
from wardmesh_fhir_store.faults import Fault, invalid, not_found
from wardmesh_fhir_store.jsontext import Tree, decode_object, encode, members_of
from wardmesh_fhir_store.records import Current, Identity, lock
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.wire import Response

CODED = ("security", "tag")
TABLES = ("token", "string", "uri")

_VERSION = text(
    """SELECT body FROM fhir_version WHERE datastore_id = :datastore AND resource_type = :type
    AND resource_id = :id AND version = :version"""
)


class Metas:
    """One per datastore."""

    def __init__(self, store: Store) -> None:
        self._store = store
        common = store.definitions.common.values()
        beside = [parameter_key("Resource", f"{p.code}:text") for p in common]
        self._keys = frozenset([*(p.key for p in common), *beside])

    async def read(self, kind: str, identity: str, version: str) -> Response:
        async def work(connection: AsyncConnection) -> Response:
            if not identity:
                return _answer(await self._in_use(connection, kind))
            body = await self._body(connection, (kind, identity), version)
            return _answer(members_of(body).get("meta", Raw(b"{}")))

        return await self._store.database.read(work)

    async def change(self, body: bytes, identity: Identity, version: str, *, add: bool) -> Response:
        given = self._given(body)

        async def work(connection: AsyncConnection) -> Response:
            current = (await lock(connection, self._store.datastore, [identity])).get(identity)
            if current is None:
                raise not_found()
            number = int(version) if version else current.version
            old = await self._body(connection, identity, str(number))
            tree = decode_object(old)
            meta = merged(tree.get("meta", {}), given, add=add)
            raw = Raw(encode(meta))
            changed = msgspec.json.encode({**members_of(old), "meta": raw})
            await self._replace(connection, identity, number, changed)
            if number == current.version and not current.deleted:
                await self._reindex(connection, current, self._store.indexer.rows(identity[0], tree | {"meta": meta}))
            return _answer(raw)

        return await self._store.database.write(work)

    def _given(self, body: bytes) -> Tree:
        tree = decode_object(body)
        if tree.get("resourceType") != "Parameters":
            raise invalid("The operation takes Parameters with one meta.")
        self._store.validator.check(tree)
        metas = [part.get("valueMeta") for part in tree.get("parameter", []) if part.get("name") == "meta"]
        if len(metas) != 1 or not isinstance(metas[0], dict):
            raise invalid("The operation takes Parameters with one meta.", "Parameters.parameter")
        return metas[0]

    async def _body(self, connection: AsyncConnection, identity: Identity, version: str) -> bytes:
        kind, name = identity
        if not version:
            columns = tables.current.c
            query = select(columns.version).where(
                columns.datastore_id == self._store.datastore,
                columns.resource_type == kind,
                columns.resource_id == name,
            )
            found = (await connection.execute(query)).scalar_one_or_none()
            version = str(found or 0)
        values = {"datastore": self._store.datastore, "type": kind, "id": name, "version": int(version)}
        row = (await connection.execute(_VERSION, values)).first()
        if row is None:
            raise not_found()
        if row[0] is None:
            raise Fault(410, "deleted", "The resource was deleted.")
        return row[0]

    async def _replace(self, connection: AsyncConnection, identity: Identity, number: int, body: bytes) -> None:
        columns = tables.version.c
        await connection.execute(
            update(tables.version)
            .where(
                columns.datastore_id == self._store.datastore,
                columns.resource_type == identity[0],
                columns.resource_id == identity[1],
                columns.version == number,
            )
            .values(
                body=body,
                meta_revision=columns.meta_revision + 1,
                data_at=columns.data_at + len(body) - func.octet_length(columns.body),
            )
        )

    async def _reindex(self, connection: AsyncConnection, current: Current, rows: Rows) -> None:
        """Only what stands in `meta` can have changed."""
        for name in TABLES:
            table = tables.INDEX_TABLES[name]
            await connection.execute(
                delete(table).where(
                    table.c.datastore_id == self._store.datastore,
                    table.c.resource_key == current.key,
                    table.c.parameter.in_(self._keys),
                )
            )
            columns = [column for column, _ in tables.COLUMN_TYPES[name]]
            fixed = {"datastore_id": self._store.datastore, "resource_key": current.key}
            fresh = [dict(zip(columns, row, strict=True)) | fixed for row in rows.get(name, []) if row[0] in self._keys]
            if fresh:
                await connection.execute(insert(table), fresh)

    async def _in_use(self, connection: AsyncConnection, kind: str) -> Raw:
        """Every tag, label and profile of living resources; displays differ and are left out."""
        common = self._store.definitions.common
        meta: dict[str, Any] = {}
        row = tables.current.c
        living = [row.datastore_id == self._store.datastore, not_(row.deleted)]
        living += [row.resource_type == kind] if kind else []
        for member in ("profile", *CODED):
            table = tables.INDEX_TABLES["uri" if common[f"_{member}"].type == "uri" else "token"]
            named = [table.c.value] if "value" in table.c else [table.c.system, table.c.code]
            query = (
                select(*named, func.count())
                .join_from(
                    table,
                    tables.current,
                    (table.c.resource_key == row.resource_key) & (table.c.datastore_id == row.datastore_id),
                )
                .where(table.c.parameter == common[f"_{member}"].key, *living)
                .group_by(*named)
                .order_by(*named)
            )
            found = list(await connection.execute(query))
            if found and member == "profile":
                meta[member] = [one[0] for one in found]
            elif found:
                meta[member] = [_coding(one) for one in found]
        return Raw(msgspec.json.encode(meta))


def _coding(row: Sequence[Any]) -> dict[str, str]:
    return {name: value for name, value in (("system", row[0]), ("code", row[1])) if value}


def merged(held: Tree, given: Tree, *, add: bool) -> Tree:
    """Set semantics: what is there is not added again, what is absent is not missed."""
    meta = dict(held)
    for member in ("profile", *CODED):
        old = list(meta.get(member, []))
        names = {_name(one) for one in given.get(member, [])}
        if add:
            known = {_name(one) for one in old}
            old += [one for one in given.get(member, []) if _name(one) not in known]
        else:
            old = [one for one in old if _name(one) not in names]
        meta[member] = old
    return {name: value for name, value in meta.items() if value not in ([], {})}


def _name(one: Any) -> tuple[str, str]:
    if isinstance(one, dict):
        return str(one.get("system", "")), str(one.get("code", ""))
    return "", str(one)


def _answer(meta: Raw) -> Response:
    parameter = {"name": "return", "valueMeta": meta} if meta != Raw(b"{}") else {"name": "return"}
    return Response(body=msgspec.json.encode({"resourceType": "Parameters", "parameter": [parameter]}))
