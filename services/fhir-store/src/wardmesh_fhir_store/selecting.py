"""Runs searches: one page by key (not by offset), the total, and the included resources."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Row, Select, and_, func, not_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store import tables
from wardmesh_fhir_store.conditions import Condition
from wardmesh_fhir_store.definitions import Definitions
from wardmesh_fhir_store.faults import invalid
from wardmesh_fhir_store.searching import Include, Search, SortKey

MOST_INCLUDED = 1000
MOST_ITERATIONS = 5


class Found(Struct, frozen=True):
    """One resource of an answer; `after` holds its sort values for the next page."""

    key: int
    type: str
    id: str
    version: int
    updated: datetime
    body: bytes
    after: tuple[str | None, ...] = ()


class Place(Struct, frozen=True):
    """Where a page begins, or with `back` where it ends: the sort values of the neighbouring row."""

    after: list[str | None]
    back: bool = False


class Page(Struct, frozen=True):
    """`more` matches follow in the direction of reading."""

    matches: list[Found]
    more: bool
    included: list[Found] = []


class Selector:
    """One per datastore."""

    def __init__(self, definitions: Definitions, datastore: int) -> None:
        self._definitions = definitions
        self._datastore = datastore

    async def total(self, connection: AsyncConnection, search: Search) -> int:
        counted = select(func.count()).select_from(search.row).where(*search.conditions)
        return (await connection.execute(counted)).scalar_one()

    async def page(self, connection: AsyncConnection, search: Search, place: Place | None = None) -> Page:
        """At most `search.count` matches beyond the place, and what they include."""
        if search.count == 0:
            return Page([], more=False)
        found = await connection.execute(self.statement(search, place))
        rows = [_found(row, len(search.sort)) for row in found]
        more = len(rows) > search.count
        matches = rows[: search.count]
        if place is not None and place.back:
            matches.reverse()
        included = await self._included(connection, matches, search.includes) if search.includes else []
        return Page(matches, more, included)

    def statement(self, search: Search, place: Place | None = None) -> Select[*tuple[Any, ...]]:
        row, keys = search.row, search.sort
        back = place is not None and place.back
        labelled = [key.column.label(f"s{i}") for i, key in enumerate(keys)]
        inner = select(
            row.c.resource_key, row.c.resource_type, row.c.resource_id, row.c.version, row.c.last_updated, *labelled
        ).where(*search.conditions)
        if place is not None:
            inner = inner.where(_beyond(search, place))
        ordered = [_ordering(key.column, key, back=back) for key in keys]
        page = inner.order_by(*ordered, _tie(row.c.resource_key, back=back)).limit(search.count + 1).subquery("page")
        outer = [_ordering(page.c[f"s{i}"], key, back=back) for i, key in enumerate(keys)]
        whole = self._with_body(page, *(page.c[f"s{i}"] for i in range(len(keys))))
        return whole.order_by(*outer, _tie(page.c.resource_key, back=back))

    def _with_body(self, rows: Any, *extra: ColumnElement[Any]) -> Select[*tuple[Any, ...]]:
        version = tables.version
        return select(
            rows.c.resource_key,
            rows.c.resource_type,
            rows.c.resource_id,
            rows.c.version,
            rows.c.last_updated,
            version.c.body,
            *extra,
        ).join_from(
            rows,
            version,
            and_(
                version.c.datastore_id == self._datastore,
                version.c.resource_type == rows.c.resource_type,
                version.c.resource_id == rows.c.resource_id,
                version.c.version == rows.c.version,
            ),
        )

    async def _included(
        self, connection: AsyncConnection, matches: list[Found], includes: list[Include]
    ) -> list[Found]:
        """Each resource once, a match never again; `:iterate` rules run until nothing new comes (ST-49)."""
        seen = {match.key for match in matches}
        included: list[Found] = []
        fresh, rules = matches, includes
        for _ in range(MOST_ITERATIONS):
            if not fresh or not rules or len(included) >= MOST_INCLUDED:
                break
            found: list[Found] = []
            for rule in rules:
                for one in await self._follow(connection, rule, fresh):
                    if one.key not in seen:
                        seen.add(one.key)
                        found.append(one)
            included += found
            fresh, rules = found, [rule for rule in includes if rule.iterate]
        return included[:MOST_INCLUDED]

    async def _follow(self, connection: AsyncConnection, rule: Include, rows: list[Found]) -> list[Found]:
        keys = self._parameter_keys(rule)
        if rule.reverse:
            return await self._referring(connection, rule, rows, keys)
        owners = [row.key for row in rows if rule.source in ("*", row.type)]
        if not owners:
            return []
        link, other = tables.reference.alias(), tables.current.alias("other")
        conditions: list[Condition] = [link.c.datastore_id == self._datastore, link.c.resource_key.in_(owners)]
        if keys:
            conditions.append(link.c.parameter.in_(keys))
        if rule.target:
            conditions.append(link.c.target_type == rule.target)
        targets = select(link.c.target_type, link.c.target_id).where(*conditions).distinct().subquery()
        here = and_(
            other.c.datastore_id == self._datastore,
            not_(other.c.deleted),
            other.c.resource_type == targets.c.target_type,
            other.c.resource_id == targets.c.target_id,
        )
        return await self._fetch(connection, select(other).join_from(targets, other, here).limit(MOST_INCLUDED))

    async def _referring(
        self, connection: AsyncConnection, rule: Include, rows: list[Found], keys: list[int]
    ) -> list[Found]:
        link, other = tables.reference.alias(), tables.current.alias("other")
        by_type: dict[str, list[str]] = {}
        for row in rows:
            if rule.target in ("", row.type):
                by_type.setdefault(row.type, []).append(row.id)
        if not by_type:
            return []
        aimed = [and_(link.c.target_type == kind, link.c.target_id.in_(ids)) for kind, ids in by_type.items()]
        conditions: list[Condition] = [link.c.datastore_id == self._datastore, or_(*aimed)]
        if keys:
            conditions.append(link.c.parameter.in_(keys))
        owners = select(link.c.resource_key).where(*conditions).distinct().subquery()
        here = [
            other.c.datastore_id == self._datastore,
            not_(other.c.deleted),
            other.c.resource_key == owners.c.resource_key,
        ]
        if rule.source != "*":
            here.append(other.c.resource_type == rule.source)
        return await self._fetch(connection, select(other).join_from(owners, other, and_(*here)).limit(MOST_INCLUDED))

    async def _fetch(self, connection: AsyncConnection, rows: Select[*tuple[Any, ...]]) -> list[Found]:
        chosen = rows.subquery("chosen")
        query = self._with_body(chosen).order_by(chosen.c.resource_key)
        return [_found(row, 0) for row in await connection.execute(query)]

    def _parameter_keys(self, rule: Include) -> list[int]:
        """Empty means every reference parameter of any type."""
        if rule.source == "*":
            return []
        parameters = self._definitions.parameters[rule.source]
        if rule.parameter != "*":
            return [parameters[rule.parameter].key]
        return [p.key for p in parameters.values() if p.type == "reference"]


def _found(row: Row[*tuple[Any, ...]], sort_keys: int) -> Found:
    after = tuple(None if value is None else _spell(value) for value in row[6 : 6 + sort_keys])
    return Found(row[0], row[1], row[2], row[3], row[4], row[5], (*after, str(row[0])))


def _spell(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _ordering(column: ColumnElement[object], key: SortKey, *, back: bool) -> ColumnElement[object]:
    """Missing values come last, so read backwards they come first."""
    ordered = column.desc() if key.descending != back else column.asc()
    if not getattr(column, "nullable", True):  # an index can be read from its end only as it stands
        return ordered
    return ordered.nulls_first() if back else ordered.nulls_last()


def _tie(column: ColumnElement[int], *, back: bool) -> ColumnElement[int]:
    return column.desc() if back else column.asc()


def _beyond(search: Search, place: Place) -> Condition:
    """Rows that come after (or before) the given sort values; the resource key breaks ties."""
    after, back = place.after, place.back
    if len(after) != len(search.sort) + 1 or after[-1] is None:
        raise invalid("The page link belongs to another search.")
    choices: list[Condition] = []
    equal: list[Condition] = []
    for key, text in zip(search.sort, after, strict=False):
        if text is None:  # missing values of this key come last
            if back:
                choices.append(and_(*equal, key.column.is_not(None)))
            equal.append(key.column.is_(None))
            continue
        value = _value(key.cast, text)
        further = key.column < value if key.descending != back else key.column > value
        choices.append(and_(*equal, further if back else or_(further, key.column.is_(None))))
        equal.append(key.column == value)
    key_here, key_there = search.row.c.resource_key, int(after[-1])
    choices.append(and_(*equal, key_here < key_there if back else key_here > key_there))
    return or_(*choices)


def _value(cast: str, text: str) -> object:
    try:
        if cast == "date":
            return datetime.fromisoformat(text)
        return Decimal(text) if cast == "number" else text
    except (ValueError, InvalidOperation):
        raise invalid("The page link belongs to another search.") from None
