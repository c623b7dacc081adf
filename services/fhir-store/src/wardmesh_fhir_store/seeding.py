"""`wardmesh-fhir-store seed`: the demo data in one transaction, once."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import msgspec
from msgspec import Raw
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store import tables
from wardmesh_fhir_store.demo.hospital import MARKER, demo_resources
from wardmesh_fhir_store.entries import InEntry, InRequest, call_of
from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.loading import no_reads, refresh_statistics
from wardmesh_fhir_store.opening import NotMigrated, opened
from wardmesh_fhir_store.settings import StoreSettings
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.transactions import Transactions

_LOG = logging.getLogger("wardmesh.fhir-store")


async def is_seeded(store: Store) -> bool:
    """Also true when someone deleted the data since: it is not brought back."""

    async def look(connection: AsyncConnection) -> bool:
        columns = tables.current.c
        query = select(columns.version).where(
            columns.datastore_id == store.datastore,
            columns.resource_type == MARKER[0],
            columns.resource_id == MARKER[1],
        )
        return (await connection.execute(query)).first() is not None

    return await store.database.read(look)


async def seed_store(store: Store, today: datetime, patients: int) -> int:
    """How many resources were stored; 0 when they were there already."""
    if await is_seeded(store):
        return 0
    resources = demo_resources(today, patients)
    calls = [
        call_of(
            index,
            InEntry(
                resource=Raw(msgspec.json.encode(resource)),
                request=InRequest("PUT", f"{resource['resourceType']}/{resource['id']}", if_none_match="*"),
            ),
            store.base,
        )
        for index, resource in enumerate(resources)
    ]
    try:
        await Transactions(store, no_reads).run(calls, representation=False)
    except Fault as fault:
        if fault.status == 412:  # another replica was faster
            return 0
        raise
    await refresh_statistics(store)
    return len(calls)


async def seed(settings: StoreSettings, patients: int) -> int:
    """Safe to repeat."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        async with opened(settings) as store:
            count = await seed_store(store, today, patients)
    except NotMigrated:
        _LOG.error("the database has no store yet: run wardmesh-fhir-store migrate")
        return 1
    _LOG.info("stored %d demo resources" if count else "the demo data is there already (%d stored)", count)
    return 0
