"""`wardmesh-audit migrate`: databases, roles and schema; the only thing that works with the owner's rights."""

from __future__ import annotations

import contextlib
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from wardmesh_audit.schema import KEY_ROLES, LEDGER_ROLES, NO_LOGIN

_HERE = Path(__file__).parent


async def migrate(ledger_url: str, keys_url: str = "", *, logs: int = 1, revision: str = "head") -> None:
    """Brings both databases to the newest schema; safe to repeat and to run from several places at once."""
    await _prepare(ledger_url, LEDGER_ROLES, owner="audit_owner", member="audit_migrate")
    await _upgrade(ledger_url, _HERE / "migrations", "audit_owner", revision)
    if logs > 1:
        await _add_logs(ledger_url, logs)
    if keys_url:
        await _prepare(keys_url, KEY_ROLES, owner="key_owner", member="")
        await _upgrade(keys_url, _HERE / "migrations_keys", "key_owner", "head")


async def _add_logs(url: str, logs: int) -> None:
    """Logs are only ever added: what a removed one held would be out of reach."""
    conn = await asyncpg.connect(url)
    try:
        async with conn.transaction():
            await conn.execute("select pg_advisory_xact_lock(hashtext('wardmesh_migrate'))")
            await conn.execute("set local role audit_owner")
            for log in range(1, logs):
                await conn.execute("select audit_add_log($1)", log)
    finally:
        await conn.close()


async def _prepare(url: str, roles: tuple[str, ...], *, owner: str, member: str) -> None:
    await _make_database(url)
    conn = await asyncpg.connect(url)
    try:
        async with conn.transaction():
            await conn.execute("select pg_advisory_xact_lock(hashtext('wardmesh_roles'))")
            for role in roles:
                if not await conn.fetchval("select 1 from pg_roles where rolname = $1", role):
                    await conn.execute(f"create role {role} {'nologin' if role in NO_LOGIN else 'login'}")
            if member:
                await conn.execute(f"grant {owner} to {member}")
            if not await conn.fetchval("select pg_has_role(current_user, $1, 'member')", owner):
                await conn.execute(f"grant {owner} to current_user")
            await conn.execute(f"grant usage, create on schema public to {owner}")
    finally:
        await conn.close()


async def _make_database(url: str) -> None:
    """The database of the URL, made when it is missing and we may."""
    parts = urlsplit(url)
    name = parts.path.lstrip("/")
    try:
        conn = await asyncpg.connect(url)
    except asyncpg.InvalidCatalogNameError:
        conn = await asyncpg.connect(urlunsplit(parts._replace(path="/postgres")))
        quoted = '"' + name.replace('"', '""') + '"'
        # Another one may make it meanwhile.
        with contextlib.suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
            await conn.execute(f"create database {quoted}")
    await conn.close()


async def _upgrade(url: str, scripts: Path, owner: str, revision: str) -> None:
    parts = urlsplit(url)
    engine = create_async_engine(urlunsplit(parts._replace(scheme="postgresql+asyncpg")))
    try:
        async with engine.begin() as connection:
            await connection.exec_driver_sql("select pg_advisory_xact_lock(hashtext('wardmesh_migrate'))")
            await connection.exec_driver_sql(f"set local role {owner}")
            await connection.run_sync(_run_alembic, scripts, revision)
    finally:
        await engine.dispose()


def _run_alembic(connection: Connection, scripts: Path, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["version_table"] = "alembic_version"
    command.upgrade(config, revision)
