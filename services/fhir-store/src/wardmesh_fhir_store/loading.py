"""Loads Bundles through the store's own transaction path: Synthea transactions and plain collections."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Raw, Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store import tables
from wardmesh_fhir_store.entries import InBundle, InEntry, InRequest, call_of, read_bundle
from wardmesh_fhir_store.faults import Fault, invalid
from wardmesh_fhir_store.jsontext import Peek
from wardmesh_fhir_store.opening import NotMigrated, opened
from wardmesh_fhir_store.settings import StoreSettings
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.transactions import Transactions
from wardmesh_fhir_store.wire import Response

_LOG = logging.getLogger("wardmesh.fhir-store")


class Loaded(Struct, frozen=True):
    """What one Bundle brought."""

    resources: int
    seconds: float


async def no_reads(*_: object) -> Response:
    raise invalid("A loaded Bundle only writes.")


async def load_bundle(store: Store, body: bytes) -> Loaded:
    """One Bundle, all or nothing. Raises Fault."""
    started = time.perf_counter()
    bundle = read_bundle(body)
    calls = [call_of(index, entry, store.base) for index, entry in enumerate(_requests(bundle))]
    await Transactions(store, no_reads).run(calls, representation=False)
    return Loaded(len(calls), time.perf_counter() - started)


def _requests(bundle: InBundle) -> Sequence[InEntry]:
    if bundle.type == "transaction":
        return bundle.entry
    if bundle.type != "collection":
        raise invalid("Only transaction and collection Bundles can be loaded.", "Bundle.type")
    return [_as_write(entry) for entry in bundle.entry]


def _as_write(entry: InEntry) -> InEntry:
    """A collection entry with an id is stored under it, one without gets an id."""
    if not isinstance(entry.resource, Raw):
        raise invalid("An entry of a collection has no resource.")
    peek = msgspec.json.decode(entry.resource, type=Peek)
    request = InRequest("PUT", f"{peek.resource_type}/{peek.id}") if peek.id else InRequest("POST", peek.resource_type)
    return InEntry(entry.full_url, entry.resource, request)


async def refresh_statistics(store: Store) -> None:
    """After a bulk load the planner would guess until autovacuum comes by."""

    async def analyze(connection: AsyncConnection) -> None:
        for table in (tables.current, tables.version, *tables.INDEX_TABLES.values()):
            await connection.execute(text(f"ANALYZE {table.name}"))

    await store.database.read(analyze)


async def load_files(settings: StoreSettings, files: Sequence[Path]) -> int:
    """`wardmesh-fhir-store load FILE...`: goes on after a file that is refused, and says so at the end."""
    refused = 0
    try:
        async with opened(settings) as store:
            for number, path in enumerate(files, start=1):
                try:
                    loaded = await load_bundle(store, path.read_bytes())
                except OSError as error:
                    refused += 1
                    _LOG.error("file %d of %d cannot be read: %s", number, len(files), error.strerror)
                except Fault as fault:
                    refused += 1
                    where = next((e for issue in fault.issues for e in issue.expression or ()), "")
                    _LOG.error("file %d of %d was refused: %s %s", number, len(files), fault, where)
                else:
                    rate = loaded.resources / max(loaded.seconds, 0.001)
                    _LOG.info("file %d of %d: %d resources, %.0f a second", number, len(files), loaded.resources, rate)
    except NotMigrated:
        _LOG.error("the database has no store yet: run wardmesh-fhir-store migrate")
        return 1
    return 1 if refused else 0
