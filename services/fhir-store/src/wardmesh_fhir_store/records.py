"""Writes versions: locks the current rows, stamps the bodies, replaces the index rows, in few round trips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.composites import Rows
from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.jsontext import Members, stamp
from wardmesh_fhir_store.moments import instant
from wardmesh_fhir_store.tables import COLUMN_TYPES, INDEX_TABLES

Identity = tuple[str, str]  # resource type and id


class Raced(Exception):
    """Another writer created the same identity between our look and our insert: run the work again."""


class Current(Struct, frozen=True):
    """The row that writers lock."""

    key: int
    version: int
    deleted: bool
    updated: datetime


class Change(Struct, frozen=True, kw_only=True):
    """One version to be written; `members` is None for a delete."""

    type: str
    id: str
    method: str
    members: Members | None = None
    rows: Rows | None = None
    current: Current | None = None


class Saved(Struct, frozen=True, kw_only=True):
    """One version that was written."""

    type: str
    id: str
    version: int
    updated: datetime
    body: bytes | None
    created: bool

    @property
    def outcome_status(self) -> int:
        return 204 if self.body is None else 201 if self.created else 200


MANY = 100  # from here on COPY is cheaper than arrays
# A plan that was kept from when the tables were empty would compare every identity with every row.
_PLAN_ANEW = text("SET LOCAL plan_cache_mode = force_custom_plan")
_LOCK = text(
    """SELECT resource_type, resource_id, resource_key, version, deleted, last_updated FROM fhir_current
    WHERE datastore_id = CAST(:datastore AS int) AND (resource_type, resource_id) IN
    (SELECT * FROM unnest(CAST(:types AS text[]), CAST(:ids AS text[])))
    ORDER BY resource_type, resource_id FOR UPDATE"""
)
_CREATE = text(
    """INSERT INTO fhir_current (datastore_id, resource_type, resource_id, version, deleted, last_updated)
    SELECT CAST(:datastore AS int), x.t, x.i, 1, false, CAST(:now AS timestamptz)
    FROM unnest(CAST(:types AS text[]), CAST(:ids AS text[])) AS x(t, i)
    ON CONFLICT DO NOTHING RETURNING resource_type, resource_id, resource_key"""
)


def removal_parts() -> list[str]:
    """Common table expressions that remove the index rows of the keys in `:stale`."""
    return [
        f"""old_{name} AS (DELETE FROM {table.name} WHERE datastore_id = CAST(:datastore AS int)
        AND resource_key = ANY(CAST(:stale AS bigint[])))"""  # noqa: S608 - names of our own tables
        for name, table in INDEX_TABLES.items()
    ]


def index_parts() -> list[str]:
    """Common table expressions that replace the index rows of the keys in `:stale`."""
    parts = removal_parts()
    for name, table in INDEX_TABLES.items():
        columns = COLUMN_TYPES[name]
        names = ", ".join(column for column, _ in columns)
        arrays = ", ".join(f"CAST(:{name}_{column} AS {kind}[])" for column, kind in columns)
        parts.append(
            f"""new_{name} AS (INSERT INTO {table.name} (datastore_id, resource_key, {names})
            SELECT CAST(:datastore AS int), x.* FROM unnest(CAST(:{name}_resource_key AS bigint[]), {arrays}) AS x)"""  # noqa: S608
        )
    return parts


TOUCH = """touched AS (UPDATE fhir_current c SET version = x.v, deleted = x.gone, last_updated = x.updated
    FROM unnest(CAST(:held AS bigint[]), CAST(:held_versions AS int[]), CAST(:gone AS bool[]),
        CAST(:held_updated AS timestamptz[])) AS x(k, v, gone, updated)
    WHERE c.datastore_id = CAST(:datastore AS int) AND c.resource_key = x.k)"""
ALIVE = """EXISTS (SELECT 1 FROM datastore d WHERE d.datastore_id = CAST(:datastore AS int)
    AND d.status IN ('CREATING', 'ACTIVE'))"""
# What happened, never what was written (ST-73); `feed.publisher` takes it from there.
_TELL = """told AS (INSERT INTO outbox (datastore_id, resource_type, resource_id, version, method, happened)
    SELECT CAST(:datastore AS int), x.*
    FROM unnest(CAST(:types AS text[]), CAST(:ids AS text[]), CAST(:versions AS int[]),
        CAST(:methods AS text[]), CAST(:updated AS timestamptz[])) AS x)"""


def _save_statement(*, told: bool) -> TextClause:
    """Everything after the lock in one statement: current rows, versions, old and new index rows, the outbox."""
    parts = [TOUCH, *index_parts(), *([_TELL] if told else [])]
    return text(
        f"""WITH {", ".join(parts)}
        INSERT INTO fhir_version
            (datastore_id, resource_type, resource_id, version, last_updated, method, status, body)
        SELECT CAST(:datastore AS int), x.*
        FROM unnest(CAST(:types AS text[]), CAST(:ids AS text[]), CAST(:versions AS int[]),
            CAST(:updated AS timestamptz[]), CAST(:methods AS text[]), CAST(:statuses AS int[]),
            CAST(:bodies AS bytea[])) AS x WHERE {ALIVE}"""  # noqa: S608
    )


_SAVE = {told: _save_statement(told=told) for told in (False, True)}


async def lock(connection: AsyncConnection, datastore: int, identities: Iterable[Identity]) -> dict[Identity, Current]:
    """The current rows, locked in one order by every writer so that none waits in a circle."""
    wanted = list(identities)
    if not wanted:
        return {}
    if len(wanted) >= MANY:
        await connection.execute(_PLAN_ANEW)
    found = await connection.execute(
        _LOCK,
        {"datastore": datastore, "types": [t for t, _ in wanted], "ids": [i for _, i in wanted]},
    )
    return {(row[0], row[1]): Current(row[2], row[3], row[4], row[5]) for row in found}


async def save(connection: AsyncConnection, datastore: int, changes: Sequence[Change], *, told: bool) -> list[Saved]:
    """Write every change; their current rows are locked already. `told`: the bus hears of it. Raises Raced."""
    if not changes:
        return []
    keys, saved = await begin(connection, datastore, changes)
    values: dict[str, Any] = {
        "datastore": datastore,
        **held_values(changes, saved),
        "types": [c.type for c in changes],
        "ids": [c.id for c in changes],
        "methods": [c.method for c in changes],
        "versions": [s.version for s in saved],
        "updated": [s.updated for s in saved],
        "bodies": [s.body for s in saved],
        "statuses": [s.outcome_status for s in saved],
    }
    done = await connection.execute(_SAVE[told], values | index_values([c.rows or {} for c in changes], keys))
    check_written(done.rowcount)
    return saved


async def begin(
    connection: AsyncConnection, datastore: int, changes: Sequence[Change]
) -> tuple[list[int], list[Saved]]:
    """The current rows of what is new, and with them the key and the version of every change. Raises Raced."""
    now = _now()
    keys = await _create(connection, datastore, [c for c in changes if c.current is None], now)
    found = [c.current.key if c.current else keys[c.type, c.id] for c in changes]
    return found, [_version(change, now) for change in changes]


def held_values(changes: Sequence[Change], saved: Sequence[Saved]) -> dict[str, Any]:
    """What the current rows become that were there before: the others are as they were just made."""
    held = [(c.current, c, s) for c, s in zip(changes, saved, strict=True) if c.current]
    return {
        "held": [current.key for current, _, _ in held],
        "stale": [current.key for current, _, _ in held if not current.deleted],
        "held_versions": [s.version for _, _, s in held],
        "gone": [c.members is None for _, c, _ in held],
        "held_updated": [s.updated for _, _, s in held],
    }


def check_written(count: int) -> None:
    """It began to go since we looked: nothing may be written behind the one who empties it."""
    if not count:
        raise Fault(409, "conflict", "The datastore is being deleted.")


async def _create(
    connection: AsyncConnection, datastore: int, changes: list[Change], now: datetime
) -> dict[Identity, int]:
    if not changes:
        return {}
    types, ids = [c.type for c in changes], [c.id for c in changes]
    found = await connection.execute(_CREATE, {"datastore": datastore, "types": types, "ids": ids, "now": now})
    keys = {(row[0], row[1]): row[2] for row in found}
    if len(keys) != len(changes):
        raise Raced
    return keys


def _version(change: Change, now: datetime) -> Saved:
    """The version number counts on over deletes; the time grows strictly per resource (ST-2)."""
    current = change.current
    number = current.version + 1 if current else 1
    updated = max(now, current.updated + timedelta(milliseconds=1)) if current else now
    body = None
    if change.members is not None:
        body = stamp(change.members, change.type, change.id, number, instant(updated))
    created = current is None or current.deleted
    return Saved(type=change.type, id=change.id, version=number, updated=updated, body=body, created=created)


def index_values(found: Sequence[Rows], keys: Sequence[int]) -> dict[str, list[Any]]:
    """Index rows as the arrays that `index_parts` reads."""
    values: dict[str, list[Any]] = {}
    for name, columns in COLUMN_TYPES.items():
        rows: list[tuple[Any, ...]] = []
        owners: list[int] = []
        for one, key in zip(found, keys, strict=True):
            held = one.get(name, ())
            rows += held
            owners += [key] * len(held)
        values[f"{name}_resource_key"] = owners
        for position, (column, _) in enumerate(columns):
            values[f"{name}_{column}"] = [row[position] for row in rows]
    return values


def _now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
