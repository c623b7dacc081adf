"""Opens the store's datastores over one connection pool, for the service and for its commands."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from wardmesh_fhir_store.database import Database, engine_for
from wardmesh_fhir_store.datastores import Addresses, Datastores
from wardmesh_fhir_store.definitions import load_definitions
from wardmesh_fhir_store.migrate import DEFAULT_DATASTORE, is_migrated
from wardmesh_fhir_store.settings import StoreSettings
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.validation import Validator


class NotMigrated(Exception):
    """The schema or the default datastore is missing."""


@asynccontextmanager
async def registry(settings: StoreSettings) -> AsyncGenerator[Datastores]:
    """Every datastore over one connection pool."""
    engine = engine_for(settings.database_url, settings.pool_size, settings.statement_timeout_ms)
    try:
        if not await is_migrated(engine):
            raise NotMigrated
        definitions = load_definitions()
        addresses = Addresses(settings.base, DEFAULT_DATASTORE)
        yield Datastores(Database(engine), definitions, Validator(definitions), addresses, told=bool(settings.nats_url))
    finally:
        await engine.dispose()


@asynccontextmanager
async def opened(settings: StoreSettings) -> AsyncGenerator[Store]:
    """The default datastore."""
    async with registry(settings) as datastores:
        yield await datastores.active(DEFAULT_DATASTORE, settings.base)
