"""Writes many versions at once: binary COPY into temporary tables and from there into the guarded ones.

COPY does not go into tables with row-level security, and arrays of a thousand rows cost more to send than they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.database import meaning
from wardmesh_fhir_store.records import (
    ALIVE,
    TOUCH,
    Change,
    Saved,
    begin,
    check_written,
    held_values,
    removal_parts,
)
from wardmesh_fhir_store.tables import COLUMN_TYPES, INDEX_TABLES

_VERSION = "resource_type, resource_id, version, last_updated, method, status, body"
_TOLD = "resource_type, resource_id, version, method, last_updated"


def _columns(name: str) -> str:
    return ", ".join(("resource_key", *(column for column, _ in COLUMN_TYPES[name])))


def _staging() -> str:
    """They live as long as the connection and are empty after each transaction. One that writes again empties them
    itself: an import does when identities come again.
    """
    shapes = [("version", "fhir_version", _VERSION)]
    shapes += [(name, table.name, _columns(name)) for name, table in INDEX_TABLES.items()]
    return ";".join(
        f"""CREATE TEMPORARY TABLE IF NOT EXISTS staged_{name} ON COMMIT DELETE ROWS
        AS SELECT {columns} FROM {table} WITH NO DATA; DELETE FROM staged_{name}"""  # noqa: S608 - our own names
        for name, table, columns in shapes
    )


def _merge_statement(*, told: bool) -> TextClause:
    parts = [
        f"""new_{name} AS (INSERT INTO {table.name} (datastore_id, {_columns(name)})
        SELECT CAST(:datastore AS int), * FROM staged_{name})"""  # noqa: S608
        for name, table in INDEX_TABLES.items()
    ]
    if told:
        parts.append(
            f"""told AS (INSERT INTO outbox (datastore_id, resource_type, resource_id, version, method, happened)
            SELECT CAST(:datastore AS int), {_TOLD} FROM staged_version)"""  # noqa: S608
        )
    return text(
        f"""WITH {", ".join(parts)} INSERT INTO fhir_version (datastore_id, {_VERSION})
        SELECT CAST(:datastore AS int), * FROM staged_version WHERE {ALIVE}"""  # noqa: S608
    )


_STAGE = _staging()
_REPLACE = text(f"WITH {', '.join([TOUCH, *removal_parts()])} SELECT 1")
_MERGE = {told: _merge_statement(told=told) for told in (False, True)}


async def save_many(
    connection: AsyncConnection, datastore: int, changes: Sequence[Change], *, told: bool
) -> list[Saved]:
    """As `records.save`. Raises Raced."""
    keys, saved = await begin(connection, datastore, changes)
    own = {"datastore": datastore}
    held = held_values(changes, saved)
    if held["held"]:
        await connection.execute(_REPLACE, own | held)
    driver: Any = (await connection.get_raw_connection()).driver_connection
    try:
        await driver.execute(_STAGE)
        await driver.copy_records_to_table("staged_version", records=_versions(changes, saved))
        for name in INDEX_TABLES:
            rows = [(key, *row) for change, key in zip(changes, keys, strict=True) for row in _rows(change, name)]
            if rows:
                await driver.copy_records_to_table(f"staged_{name}", records=rows)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise meaning(error) from None
    check_written((await connection.execute(_MERGE[told], own)).rowcount)
    return saved


def _rows(change: Change, name: str) -> Sequence[tuple[Any, ...]]:
    return change.rows.get(name, ()) if change.rows else ()


def _versions(changes: Sequence[Change], saved: Sequence[Saved]) -> list[tuple[Any, ...]]:
    return [
        (one.type, one.id, one.version, one.updated, change.method, one.outcome_status, one.body)
        for change, one in zip(changes, saved, strict=True)
    ]
