"""Finds the code systems and value sets of one datastore by address, for one request."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import msgspec
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.definitions import Definitions
from wardmesh_fhir_store.indexing import fit
from wardmesh_fhir_store.references import target_of
from wardmesh_fhir_store.terminology.sets import ValueSetBody
from wardmesh_fhir_store.terminology.systems import CodeSystem, CodeSystemBody, Unanswerable

MOST_READ = 60  # resources that one search may make us read
MOST_EDITIONS = 10  # of one address
LARGEST_BODY = 8 * 1024 * 1024
LARGE_BODY = 256 * 1024  # beyond it decoding leaves the event loop
Body = TypeVar("Body", CodeSystemBody, ValueSetBody)

_EDITIONS = text(
    """SELECT DISTINCT c.resource_id, c.version, c.last_updated, c.resource_key
    FROM idx_uri u JOIN fhir_current c USING (datastore_id, resource_key)
    WHERE u.datastore_id = :datastore AND u.parameter = :parameter AND u.value = :url
    AND c.resource_type = :kind AND NOT c.deleted
    ORDER BY c.last_updated DESC, c.resource_key DESC LIMIT :most"""
)
_BY_ID = text(
    """SELECT resource_id, version FROM fhir_current
    WHERE datastore_id = :datastore AND resource_type = :kind AND resource_id = :id AND NOT deleted"""
)
_BODY = text(
    """SELECT CASE WHEN octet_length(body) <= :largest THEN body END FROM fhir_version
    WHERE datastore_id = :datastore AND resource_type = :kind AND resource_id = :id AND version = :version"""
)


class Shelf:
    """One per request: what was read once is not read again."""

    def __init__(
        self, connection: AsyncConnection, definitions: Definitions, bases: tuple[str, ...], datastore: int
    ) -> None:
        self._connection = connection
        self._definitions = definitions
        self._bases = bases
        self._datastore = datastore
        self._read = 0
        self._systems: dict[tuple[str, str], CodeSystem | None] = {}

    async def code_system(self, url: str, version: str = "") -> CodeSystem | None:
        """None when it is not held. Raises Unanswerable."""
        if (url, version) not in self._systems:
            body = await self._canonical("CodeSystem", url, version, CodeSystemBody)
            exact = url in self._definitions.case_sensitive or (body is not None and body.case_sensitive)
            self._systems[url, version] = CodeSystem(body, exact=exact) if body else None
        return self._systems[url, version]

    async def value_set(self, named: str) -> ValueSetBody | None:
        """By `url`, `url|version`, or `ValueSet/id` of this datastore. Raises Unanswerable."""
        target = target_of(named, self._bases)
        if target and target.type == "ValueSet" and target.id and not target.version:
            rows = await self._rows(_BY_ID, {"kind": "ValueSet", "id": target.id})
            return await self._body("ValueSet", rows[0], ValueSetBody) if rows else None
        url, _, version = named.partition("|")
        return await self._canonical("ValueSet", url, version, ValueSetBody)

    async def _canonical(self, kind: str, url: str, version: str, body: type[Body]) -> Body | None:
        """Without a version the one that was changed last, active ones first."""
        parameter = self._definitions.parameters[kind]["url"].key
        values = {"kind": kind, "parameter": parameter, "url": fit(url), "most": MOST_EDITIONS + 1}
        rows = await self._rows(_EDITIONS, values)
        if len(rows) > MOST_EDITIONS:
            raise Unanswerable("Too many editions of a code system or value set are held.")
        found = [await self._body(kind, row, body) for row in rows]
        fitting = [one for one in found if one.url == url and (not version or one.version == version)]
        return min(fitting, key=lambda one: one.status != "active", default=None)

    async def _body(self, kind: str, row: Any, body: type[Body]) -> Body:
        self._read += 1
        if self._read > MOST_READ:
            raise Unanswerable("Too many code systems and value sets would have to be read.")
        values = {"kind": kind, "id": row[0], "version": row[1], "largest": LARGEST_BODY}
        held: bytes | None = (await self._rows(_BODY, values))[0][0]
        if held is None:
            raise Unanswerable("A code system or value set that is held is too large to be searched with.")
        try:
            if len(held) > LARGE_BODY:
                return await asyncio.to_thread(msgspec.json.decode, held, type=body)
            return msgspec.json.decode(held, type=body)
        except (msgspec.MsgspecError, RecursionError):
            raise Unanswerable("A code system or value set that is held is nested too deeply.") from None

    async def _rows(self, statement: Any, values: dict[str, Any]) -> list[Any]:
        return list(await self._connection.execute(statement, {"datastore": self._datastore, **values}))
