"""Opens the store's datastores over one connection pool, for the service and for its commands."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from wardmesh_fhir_store.database import Database, engine_for
from wardmesh_fhir_store.datastores import Addresses, Datastores
from wardmesh_fhir_store.definitions import load_definitions
from wardmesh_fhir_store.migrate import DEFAULT_DATASTORE, is_migrated, makes_temporary_tables
from wardmesh_fhir_store.settings import StoreSettings
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.validation import Validator


class Unusable(Exception):
    """The database is not as the store needs it; the text says what to do."""


NO_STORE = "the database has no store yet: run wardmesh-fhir-store migrate"
# Many versions at once are copied into temporary tables first (bulk_saving.py).
NO_TEMPORARY = "the database user may not make temporary tables: GRANT TEMPORARY ON DATABASE to it"


@asynccontextmanager
async def registry(settings: StoreSettings) -> AsyncGenerator[Datastores]:
    """Every datastore over one connection pool."""
    engine = engine_for(settings.database_url, settings.pool_size, settings.statement_timeout_ms)
    try:
        if not await is_migrated(engine):
            raise Unusable(NO_STORE)
        if not await makes_temporary_tables(engine):
            raise Unusable(NO_TEMPORARY)
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
