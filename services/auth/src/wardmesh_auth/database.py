"""The connection to PostgreSQL: short limits on every wait, and trouble named Unavailable without library text."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from wardmesh_common.errors import Unavailable

SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")
TROUBLE = (SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

log = logging.getLogger("wardmesh.auth")


def engine_for(url: str, *, pool_size: int = 10, timeout_seconds: int = 2) -> AsyncEngine:
    """The URL goes to asyncpg as it is, so everything that libpq URLs can say (sslmode, several hosts) works."""
    scheme, _, rest = url.partition("://")
    if scheme not in SCHEMES or not rest:
        raise ValueError("the database URL must begin with postgresql://")

    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(
            f"postgresql://{rest}",
            timeout=timeout_seconds,
            command_timeout=timeout_seconds * 5,
            server_settings={"application_name": "wardmesh-auth"},
        )

    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=timeout_seconds,
        pool_recycle=300,
        pool_pre_ping=True,  # statements are rare here; none should fail because the server was restarted
        hide_parameters=True,  # parameters hold hashes and sealed bytes; they have no place in an error
    )


class Database:
    """Transactions whose failure is an expected error of the mesh."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.up = True

    @asynccontextmanager
    async def transaction(self, limit_seconds: float = 3.0) -> AsyncGenerator[AsyncConnection]:
        """Commits at the end. Raises Unavailable when the database cannot be used, or not within the limit."""
        try:
            async with asyncio.timeout(limit_seconds), self._engine.begin() as connection:
                yield connection
        except TROUBLE as error:
            if self.up:
                log.warning("the database cannot be used: %s", type(error).__name__)
            self.up = False
            raise Unavailable("the store of sessions and grants is not reachable", retry_after=2) from None
        if not self.up:
            log.info("the database can be used again")
        self.up = True

    async def close(self) -> None:
        await self._engine.dispose()
