"""Connections of the commands: a database session and a bus connection that live as long as the command."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator

import asyncpg

from wardmesh_audit.ledger import Connection
from wardmesh_common.contracts import inbox_of
from wardmesh_common.lean import LeanClient

CONNECT_SECONDS = 10


@contextlib.asynccontextmanager
async def database(url: str) -> AsyncGenerator[Connection]:
    """One session. Raises what asyncpg raises when the server is not there or refuses."""
    conn = await asyncpg.connect(url, timeout=CONNECT_SECONDS)
    try:
        yield conn
    finally:
        await conn.close(timeout=CONNECT_SECONDS)


@contextlib.asynccontextmanager
async def nats_as(user: str, url: str, seed: str) -> AsyncGenerator[LeanClient]:
    """A connection as one NATS user with an inbox of its own. Raises nats.errors.Error when it cannot be had."""
    nc = LeanClient()
    nc.inbox = inbox_of(user, f"{user}-{secrets.token_hex(4)}")
    # The client tries a first connection again and again, whatever it is told about reconnecting.
    async with asyncio.timeout(CONNECT_SECONDS):
        await nc.connect(
            url.split(","),
            name=f"wardmesh-audit {user}",
            nkeys_seed_str=seed or None,
            inbox_prefix=nc.inbox,
            connect_timeout=CONNECT_SECONDS,
            allow_reconnect=False,
            error_cb=_ignore,
        )
    try:
        yield nc
    finally:
        await nc.close()


async def _ignore(_error: Exception) -> None:
    """nats-py would print a stack trace; the command reports what failed itself."""
