"""`wardmesh-fhir-store reindex`: rebuilds the index rows of every datastore while the store serves (ST-74)."""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store import tables
from wardmesh_fhir_store.jsontext import decode_object
from wardmesh_fhir_store.opening import Unusable, registry
from wardmesh_fhir_store.records import index_parts, index_values
from wardmesh_fhir_store.settings import StoreSettings
from wardmesh_fhir_store.store import Store

_LOG = logging.getLogger("wardmesh.fhir-store")
BATCH = 200
_REPLACE = text(f"WITH {', '.join(index_parts())} SELECT 1")
# Locked, so that a writer and we never both replace the rows of one resource.
_NEXT = text(
    """SELECT c.resource_key, c.resource_type, v.body FROM fhir_current c JOIN fhir_version v
    USING (datastore_id, resource_type, resource_id, version)
    WHERE c.datastore_id = :datastore AND NOT c.deleted AND c.resource_key > :after
    ORDER BY c.resource_key LIMIT :batch FOR UPDATE OF c"""
)


async def reindex_store(store: Store) -> int:
    """How many resources were indexed anew; small transactions, so that writers wait for moments only."""
    count, after = 0, 0

    async def work(connection: AsyncConnection) -> list[int]:
        values = {"datastore": store.datastore, "after": after, "batch": BATCH}
        found = list(await connection.execute(_NEXT, values))
        rows = await asyncio.to_thread(lambda: [store.indexer.rows(row[1], decode_object(row[2])) for row in found])
        keys = [row[0] for row in found]
        if keys:
            await connection.execute(_REPLACE, {"datastore": store.datastore, "stale": keys} | index_values(rows, keys))
        return keys

    while keys := await store.database.write(work):
        count += len(keys)
        after = keys[-1]
    return count


async def reindex(settings: StoreSettings) -> int:
    """Every active datastore, one after the other."""
    try:
        async with registry(settings) as datastores:

            async def active(connection: AsyncConnection) -> list[str]:
                columns = tables.datastore.c
                query = select(columns.public_id).where(columns.status == "ACTIVE").order_by(columns.datastore_id)
                return list((await connection.execute(query)).scalars())

            for number, public_id in enumerate(await datastores.database.read(active), start=1):
                count = await reindex_store(await datastores.active(public_id))
                _LOG.info("datastore %d: %d resources indexed anew", number, count)
    except Unusable as error:
        _LOG.error("%s", error)
        return 1
    return 0
