"""History of a resource, a type or everything: newest first, paged by (time, sequence) (ST-30 to ST-33)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Raw
from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store import tables
from wardmesh_fhir_store.conditions import Condition
from wardmesh_fhir_store.faults import invalid, not_found, not_supported
from wardmesh_fhir_store.matching import date_span
from wardmesh_fhir_store.moments import instant
from wardmesh_fhir_store.paging import Cursor
from wardmesh_fhir_store.query import Pair, pairs_of, query_of
from wardmesh_fhir_store.reading import etag
from wardmesh_fhir_store.searching import DEFAULT_COUNT, LARGEST_COUNT
from wardmesh_fhir_store.searchset import Entry, EntryRequest, EntryResponse, Link, bundle
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.wire import Request, Response

KNOWN = frozenset({"_count", "_since", "_at", "_format", "_pretty", "_cursor"})
REASONS = {200: "200 OK", 201: "201 Created", 204: "204 No Content"}


class History:
    """Reads `fhir_version`; what page one saw bounds the pages after it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def history(
        self, connection: AsyncConnection, request: Request, kind: str = "", identity: str = ""
    ) -> Response:
        path = "/".join(part for part in (kind, identity, "_history") if part)
        pairs = pairs_of(request.query)
        if any(name not in KNOWN for name, _ in pairs):
            raise not_supported("History takes _count, _since and _at.")
        token = next((value for name, value in pairs if name == "_cursor"), "")
        cursor = self._store.sealer.open(token, path) if token else None
        asked = pairs_of(cursor.query) if cursor else [p for p in pairs if p[0] in ("_count", "_since", "_at")]
        count = _count(asked)
        where = self._where(kind, identity, asked)
        until = int(cursor.until) if cursor else await self._newest(connection)
        where.append(tables.version.c.sequence <= until)
        total = cursor.total if cursor else await self._total(connection, where)
        if identity and not total and not cursor:
            await self._known(connection, kind, identity)
        rows = await self._rows(connection, where, cursor, count + 1)
        links = [Link("self", self._store.url(path) + (f"?{query_of(asked)}" if asked else ""))]
        if len(rows) > count > 0:
            after: list[str | None] = [rows[count - 1].last_updated.isoformat(), str(rows[count - 1].sequence)]
            following = self._store.sealer.issue(path, query_of(asked), after, total, str(until))
            links.append(Link("next", f"{self._store.url(path)}?_cursor={following}"))
        entries = [self._entry(row) for row in rows[:count]]
        return Response(body=bundle("history", entries, links=links, total=total))

    def _where(self, kind: str, identity: str, pairs: list[Pair]) -> list[Condition]:
        columns = tables.version.c
        where: list[Condition] = [columns.datastore_id == self._store.datastore]
        if kind:
            where.append(columns.resource_type == kind)
        if identity:
            where.append(columns.resource_id == identity)
        for name, value in pairs:
            if name == "_since":
                where.append(columns.last_updated >= date_span(value)[0])
            elif name == "_at":
                where += self._at(value)
        return where

    def _at(self, value: str) -> list[Condition]:
        """Versions that were current at some moment of the range."""
        start, end = date_span(value)
        columns, later = tables.version.c, tables.version.alias("later")
        replaced = exists(
            select(later.c.version).where(
                later.c.datastore_id == columns.datastore_id,
                later.c.resource_type == columns.resource_type,
                later.c.resource_id == columns.resource_id,
                later.c.version > columns.version,
                later.c.last_updated <= start,
            )
        )
        return [columns.last_updated < end, ~replaced]

    async def _newest(self, connection: AsyncConnection) -> int:
        query = select(func.max(tables.version.c.sequence)).where(
            tables.version.c.datastore_id == self._store.datastore
        )
        return (await connection.execute(query)).scalar_one() or 0

    async def _total(self, connection: AsyncConnection, where: list[Condition]) -> int:
        query = select(func.count()).select_from(tables.version).where(*where)
        return (await connection.execute(query)).scalar_one()

    async def _known(self, connection: AsyncConnection, kind: str, identity: str) -> None:
        query = select(tables.current.c.version).where(
            tables.current.c.datastore_id == self._store.datastore,
            tables.current.c.resource_type == kind,
            tables.current.c.resource_id == identity,
        )
        if (await connection.execute(query)).first() is None:
            raise not_found()

    async def _rows(
        self, connection: AsyncConnection, where: list[Condition], cursor: Cursor | None, limit: int
    ) -> list[Any]:
        columns = tables.version.c
        conditions = list(where)
        if cursor is not None:
            moment, sequence = datetime.fromisoformat(str(cursor.after[0])), int(str(cursor.after[1]))
            older = and_(columns.last_updated == moment, columns.sequence < sequence)
            conditions.append(or_(columns.last_updated < moment, older))
        query = (
            select(tables.version)
            .where(*conditions)
            .order_by(columns.last_updated.desc(), columns.sequence.desc())
            .limit(limit)
        )
        return list(await connection.execute(query))

    def _entry(self, row: Any) -> Entry:
        kind, identity = row.resource_type, row.resource_id
        url = kind if row.method == "POST" else f"{kind}/{identity}"
        response = EntryResponse(
            status=REASONS[row.status], etag=etag(row.version), last_modified=instant(row.last_updated)
        )
        entry = Entry(
            full_url=self._store.url(kind, identity), request=EntryRequest(row.method, url), response=response
        )
        if row.body is None:
            return entry
        return Entry(full_url=entry.full_url, resource=Raw(row.body), request=entry.request, response=response)


def _count(pairs: list[Pair]) -> int:
    text = next((value for name, value in pairs if name == "_count"), str(DEFAULT_COUNT))
    if not text.isascii() or not text.isdigit():
        raise invalid("_count is not a number.")
    return min(int(text[:9]), LARGEST_COUNT)
