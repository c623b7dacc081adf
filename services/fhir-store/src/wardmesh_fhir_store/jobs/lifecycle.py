"""From CREATING to ACTIVE with sample data, from DELETING to DELETED without a row left (ST-66)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store import tables
from wardmesh_fhir_store.database import Database
from wardmesh_fhir_store.datastores import Datastores
from wardmesh_fhir_store.jobs.leases import Lease
from wardmesh_fhir_store.jobs.snapshots import outlive_writers
from wardmesh_fhir_store.seeding import seed_store

SAMPLE_PATIENTS = 50
BATCH = 5_000
_READY = text(
    """UPDATE datastore SET status = 'ACTIVE', status_since = now(), worker = NULL, lease_until = NULL
    WHERE datastore_id = :key AND status = 'CREATING'"""
)
_GONE = text(
    """UPDATE datastore SET status = 'DELETED', status_since = now(), tags = '{}', worker = NULL, lease_until = NULL
    WHERE datastore_id = :key AND status = 'DELETING'"""
)
_TABLES = (
    *(table.name for table in tables.INDEX_TABLES.values()),
    "fhir_version",
    "fhir_current",
    "outbox",
    "binary_upload",
)
_PURGE = {
    name: text(
        f"""DELETE FROM {name} WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM {name} WHERE datastore_id = :key LIMIT {BATCH}))"""  # noqa: S608 - names of our own tables
    )
    for name in _TABLES
}
_PURGE_JOBS = text("DELETE FROM job WHERE datastore_id = :key")


class Stage(Struct, frozen=True):
    """A datastore that is on its way."""

    key: int
    public_id: str
    status: str
    settings: dict[str, Any]


class Lifecycle:
    """Prepares and empties datastores."""

    def __init__(self, database: Database, datastores: Datastores) -> None:
        self._database = database
        self._datastores = datastores

    async def advance(self, stage: Stage, lease: Lease) -> None:
        """One datastore, to its end. Raises Lost."""
        if stage.status == "CREATING":
            await self._prepare(stage)
        else:
            await self._remove(stage.key, lease)
        self._datastores.forget(stage.public_id)

    async def _prepare(self, stage: Stage) -> None:
        if "PreloadDataConfig" in stage.settings:
            store = await self._datastores.in_state(stage.public_id, "CREATING")
            today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            await seed_store(store, today, SAMPLE_PATIENTS)
        await self._database.write(lambda connection: connection.execute(_READY, {"key": stage.key}))

    async def _remove(self, key: int, lease: Lease) -> None:
        bound = self._database.bound(key)

        await self._purge(bound, key, lease)
        # A write that began before may not have seen that the datastore is going; later ones have (records.save).
        await outlive_writers(self._database)
        await self._purge(bound, key, lease)

        async def end(connection: AsyncConnection) -> None:
            await lease.fence(connection)
            await connection.execute(_PURGE_JOBS, {"key": key})
            await connection.execute(_GONE, {"key": key})

        await self._database.write(end)

    async def _purge(self, bound: Database, key: int, lease: Lease) -> None:
        """In small transactions: others are served meanwhile, and a worker that takes over finds less to do."""
        for name in _TABLES:

            async def work(connection: AsyncConnection, table: str = name) -> int:
                await lease.fence(connection)
                return (await connection.execute(_PURGE[table], {"key": key})).rowcount

            while await bound.write(work):
                pass
