"""Compartments and $everything: the members, page by page, and what they refer to (ST-57, ST-58)."""

from __future__ import annotations

from sqlalchemy import and_, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store import tables
from wardmesh_fhir_store.conditions import Condition
from wardmesh_fhir_store.faults import invalid, not_found, not_supported
from wardmesh_fhir_store.matching import date_span
from wardmesh_fhir_store.query import Pair, pairs_of, query_of
from wardmesh_fhir_store.reading import INCLUDE, MATCH, Reading, place_of
from wardmesh_fhir_store.searching import Include, Search
from wardmesh_fhir_store.searchset import Link, bundle
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.wire import Request, Response

EVERYTHING = "$everything"
PAGE = 200
KNOWN = frozenset({"start", "end", "_since", "_type", "_count", "_format", "_cursor"})


class Everything:
    """Reads along compartments."""

    def __init__(self, store: Store, reading: Reading) -> None:
        self._store = store
        self._reading = reading

    async def everything(
        self, connection: AsyncConnection, request: Request, compartment: str, identity: str
    ) -> Response:
        pairs = pairs_of(request.query)
        known = KNOWN if compartment == "Patient" else KNOWN - {"start", "end"}
        if any(name not in known for name, _ in pairs):
            raise not_supported("$everything takes _since, _type and _count, for a Patient also start and end.")
        path = f"{compartment}/{identity}/{EVERYTHING}"
        token = next((value for name, value in pairs if name == "_cursor"), "")
        cursor = self._store.sealer.open(token, path) if token else None
        search = self._everything(compartment, identity, pairs_of(cursor.query) if cursor else pairs)
        if cursor is None:
            await self._reading.read(connection, Request(method="GET", path=""), compartment, identity)
        page = await self._store.selector.page(connection, search, place_of(cursor))
        total = cursor.total if cursor else await self._store.selector.total(connection, search)
        query = query_of(search.applied)
        links = [Link("self", self._store.url(path) + (f"?{query}" if query else ""))]
        links += self._reading.neighbours(path, query, page, total, cursor)
        members = self._store.definitions.compartments[compartment]
        supporting = [found for found in page.included if found.type not in members]
        entries = [self._reading.entry(found, search, MATCH) for found in page.matches]
        entries += [self._reading.entry(found, search, INCLUDE) for found in supporting]
        return Response(body=bundle("searchset", entries, links=links, total=total))

    def _everything(self, compartment: str, identity: str, pairs: list[Pair]) -> Search:
        kinds = tuple(k for name, value in pairs if name == "_type" for k in value.split(","))
        passed = [(name, value) for name, value in pairs if name == "_count"]
        passed = passed or [("_count", str(PAGE))]
        search = self._store.searches.read(kinds, passed, strict=True)
        search.conditions.append(self._store.conditions.in_compartment(search.row, compartment, identity))
        for name, value in pairs:
            if name == "_since":
                search.conditions.append(search.row.c.last_updated >= date_span(value)[0])
            if name == "start":
                search.conditions.append(self._dated(search, after=value))
            if name == "end":
                search.conditions.append(self._dated(search, before=value))
        search.includes = [Include("*", "*", "", reverse=False, iterate=False)]
        search.applied = [pair for pair in pairs if pair[0] not in ("_format", "_cursor")]
        return search

    def _dated(self, search: Search, after: str = "", before: str = "") -> Condition:
        """Care dates: resources with a clinical date must touch the range, the others stay."""
        table = tables.date.alias()
        parameters = self._store.definitions.parameters
        keys = [t["date"].key for t in parameters.values() if "date" in t and t["date"].type == "date"]
        here = and_(
            table.c.datastore_id == self._store.datastore,
            table.c.resource_key == search.row.c.resource_key,
            table.c.parameter.in_(keys),
        )
        touches = table.c.high > date_span(after)[0] if after else table.c.low < date_span(before)[1]
        return or_(~exists(select(table.c.low).where(here)), exists(select(table.c.low).where(here, touches)))

    async def compartment(
        self, connection: AsyncConnection, request: Request, compartment: str, identity: str, kind: str
    ) -> Response:
        """`Patient/x/Observation?…` with every search feature, `*` for all member types."""
        members = self._store.definitions.compartments[compartment]
        if kind != "*" and kind not in members:
            raise not_found("The type is not part of this compartment.")
        path = f"{compartment}/{identity}/{kind}"
        pairs = pairs_of(request.query)
        token = next((value for name, value in pairs if name == "_cursor"), "")
        cursor = self._store.sealer.open(token, path) if token else None
        strict = "handling=strict" in request.headers.get("prefer", "")
        kinds = () if kind == "*" else (kind,)
        if any(name == "_type" for name, _ in pairs):
            raise invalid("_type does not belong to a compartment search.")
        pairs = pairs_of(cursor.query) if cursor else pairs
        search = (await self._store.searches_for(connection, pairs)).read(kinds, pairs, strict=strict)
        tied = self._store.conditions.in_compartment(search.row, compartment, identity, "" if kind == "*" else kind)
        search.conditions.append(tied)
        return await self._reading.answer(connection, path, search, cursor, token)
