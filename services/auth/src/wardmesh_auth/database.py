"""The connection to PostgreSQL: short limits on every wait, and trouble named Unavailable without library text."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from wardmesh_common.errors import Unavailable

log = logging.getLogger("wardmesh.auth")


def engine_for(url: str, *, pool_size: int = 10, timeout_seconds: float = 2.0) -> AsyncEngine:
    """Accepts the plain `postgresql://` form that all services share."""
    scheme, _, rest = url.partition("://")
    if scheme not in ("postgresql", "postgres", "postgresql+asyncpg") or not rest:
        raise ValueError("the database URL must begin with postgresql://")
    return create_async_engine(
        f"postgresql+asyncpg://{rest}",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=timeout_seconds,
        pool_recycle=300,
        hide_parameters=True,  # parameters hold hashes and sealed bytes; they have no place in an error
        connect_args={
            "timeout": timeout_seconds,
            "command_timeout": timeout_seconds * 5,
            "server_settings": {"application_name": "wardmesh-auth"},
        },
    )


class Database:
    """Transactions whose failure is an expected error of the mesh."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.up = True

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncConnection]:
        """Commits at the end. Raises Unavailable when the database cannot be used."""
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            if self.up:
                log.warning("the database cannot be used: %s", type(error).__name__)
            self.up = False
            raise Unavailable("the store of sessions and grants is not reachable", retry_after=2) from None
        if not self.up:
            log.info("the database can be used again")
        self.up = True

    async def close(self) -> None:
        await self._engine.dispose()
