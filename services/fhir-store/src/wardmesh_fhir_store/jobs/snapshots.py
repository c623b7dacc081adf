"""What an export holds: the versions that had committed at one moment, however long the export takes (ST-70)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.database import Database
from wardmesh_fhir_store.jobs.leases import Lease

POLL_SECONDS = 0.05
# Transactions that began before may still write what is older than now: they are waited for.
OLD_WRITERS = text(
    """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user
    AND pid <> pg_backend_pid() AND xact_start < :since"""
)
_TAKE = text(
    """UPDATE job SET snapshot = pg_current_snapshot(), transaction_time = :moment WHERE job_id = :job
    RETURNING CAST(snapshot AS text)"""
)
_KINDS = text("SELECT DISTINCT resource_type FROM fhir_current WHERE datastore_id = :datastore ORDER BY 1")
_PAGE = text(
    """SELECT resource_id, body, last_updated FROM (
        SELECT DISTINCT ON (resource_id) resource_id, body, last_updated FROM fhir_version
        WHERE datastore_id = :datastore AND resource_type = :kind AND resource_id > :after
        AND pg_visible_in_snapshot(transaction_id, CAST(CAST(:snapshot AS text) AS pg_snapshot))
        ORDER BY resource_id, version DESC) AS newest
    WHERE CAST(:since AS timestamptz) IS NULL OR last_updated >= :since
    ORDER BY resource_id LIMIT :size"""
)


class Snapshot(Struct, frozen=True):
    transactions: str
    moment: datetime


class Exported(Struct, frozen=True):
    """The newest version of a resource in the snapshot; no body when it had been deleted."""

    id: str
    body: bytes | None


async def outlive_writers(database: Database) -> datetime:
    """Returns a moment before which every transaction has ended."""

    async def clock(connection: AsyncConnection) -> datetime:
        return (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()

    since = await database.read(clock)

    async def count(connection: AsyncConnection) -> int:
        return (await connection.execute(OLD_WRITERS, {"since": since})).scalar_one()

    while await database.read(count):  # noqa: ASYNC110 - other processes' transactions: nobody tells us
        await asyncio.sleep(POLL_SECONDS)
    return since


async def take(database: Database, job: str, lease: Lease) -> Snapshot:
    """Kept with the job, so that whoever resumes it exports the same."""
    moment = await outlive_writers(database)

    async def work(connection: AsyncConnection) -> Snapshot:
        await lease.fence(connection)
        found = (await connection.execute(_TAKE, {"job": job, "moment": moment})).scalar_one()
        return Snapshot(found, moment)

    return await database.write(work)


async def kinds(database: Database, datastore: int) -> list[str]:
    async def look(connection: AsyncConnection) -> list[str]:
        return list((await connection.execute(_KINDS, {"datastore": datastore})).scalars())

    return await database.read(look)


async def page(
    connection: AsyncConnection,
    datastore: int,
    kind: str,
    snapshot: Snapshot,
    after: str,
    size: int,
    since: datetime | None,
) -> Sequence[Exported]:
    """In the order of ids."""
    values: dict[str, Any] = {
        "datastore": datastore,
        "kind": kind,
        "after": after,
        "snapshot": snapshot.transactions,
        "since": since,
        "size": size,
    }
    return [Exported(row[0], row[1]) for row in await connection.execute(_PAGE, values)]
