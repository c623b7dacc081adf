"""Brings the database to the newest schema and makes sure that the default datastore exists."""

from __future__ import annotations

import secrets
from importlib.resources import files

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from wardmesh_fhir_store.database import engine_for
from wardmesh_fhir_store.tables import datastore

DEFAULT_DATASTORE = "1234567890abcdef1234567890abcdef"
MIGRATION_LOCK = 0x5374_6F72  # two replicas that migrate at once take turns


def _upgrade(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    config = Config()
    config.set_main_option("script_location", str(files(__package__ or "").joinpath("migrations")))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


async def migrate(engine: AsyncEngine) -> None:
    """Safe to repeat and to run in parallel."""
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade)
        await connection.execute(
            text(
                "INSERT INTO datastore (public_id, name, status, link_key) "
                "VALUES (:public_id, 'default', 'ACTIVE', :link_key) ON CONFLICT DO NOTHING"
            ),
            {"public_id": DEFAULT_DATASTORE, "link_key": secrets.token_bytes(32)},
        )


async def is_migrated(engine: AsyncEngine) -> bool:
    """Whether the default datastore can be served."""
    async with engine.connect() as connection:
        known = await connection.execute(text("SELECT to_regclass('datastore')"))
        if known.scalar_one() is None:
            return False
        row = await connection.execute(datastore.select().where(datastore.c.public_id == DEFAULT_DATASTORE).limit(1))
        return row.first() is not None


async def makes_temporary_tables(engine: AsyncEngine) -> bool:
    async with engine.connect() as connection:
        asked = await connection.execute(text("SELECT has_database_privilege(current_database(), 'TEMPORARY')"))
        return bool(asked.scalar_one())


async def migrate_url(database_url: str) -> int:
    """`wardmesh-fhir-store migrate`."""
    engine = engine_for(database_url, pool_size=1, statement_timeout_ms=0)
    try:
        await migrate(engine)
    finally:
        await engine.dispose()
    return 0
