"""`wardmesh-fhir-store seed`: the demo data, loaded like any file, once."""

from __future__ import annotations

import io
import logging
from datetime import UTC, datetime
from typing import BinaryIO

import msgspec

from wardmesh_fhir_store.demo.hospital import demo_resources
from wardmesh_fhir_store.jobs.loads import Busy, Content, load_content
from wardmesh_fhir_store.loading import LARGEST_FILE, refresh_statistics
from wardmesh_fhir_store.opening import Unusable, opened
from wardmesh_fhir_store.settings import StoreSettings
from wardmesh_fhir_store.store import Store

_LOG = logging.getLogger("wardmesh.fhir-store")
LEASE_SECONDS = 15.0
TOKEN = "demo"  # noqa: S105 - names the data set in whatever version and for whatever day it was made
NAME = "demo.json"  # a collection: all of it or nothing, because tomorrow's has other dates


async def seed_store(store: Store, today: datetime, patients: int) -> int:
    """How many resources were stored; 0 when they were there already, also when somebody deleted them since."""
    resources = demo_resources(today, patients)
    entries = [{"resource": resource} for resource in resources]
    body = msgspec.json.encode({"resourceType": "Bundle", "type": "collection", "entry": entries})

    async def read(_position: int) -> BinaryIO:
        return io.BytesIO(body)

    try:
        loaded = await load_content(store, Content(TOKEN, NAME, len(body), read), LARGEST_FILE, LEASE_SECONDS)
    except Busy:  # another replica does it
        return 0
    if loaded.done:
        await refresh_statistics(store)
    return loaded.done


async def seed(settings: StoreSettings, patients: int) -> int:
    """Safe to repeat."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        async with opened(settings) as store:
            count = await seed_store(store, today, patients)
    except Unusable as error:
        _LOG.error("%s", error)
        return 1
    _LOG.info("stored %d demo resources" if count else "the demo data is there already (%d stored)", count)
    return 0
