"""The engine and its three ways of use: reading, plain writing, serializable work with bounded retries."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool
from sqlalchemy.util.concurrency import greenlet_spawn

from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.records import Raced

T = TypeVar("T")
RETRIED = frozenset({"40001", "40P01"})  # serialization failure, deadlock
MOST_ATTEMPTS = 30
PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 0.25
AWAY = frozenset({"", "08", "53", "57"})  # classes of SQLSTATE: connection, resources, operator intervention
STATEMENT_TIMEOUT = "57014"
BOUND = "datastore"
BIND = "SELECT set_config('wardmesh.datastore', $1, false)"
_BIND = text(BIND.replace("$1", ":datastore"))


class Away(Fault):
    """The database cannot be reached or is shutting down; the same request may succeed later."""

    def __init__(self) -> None:
        headers = (("Retry-After", "1"),)
        super().__init__(503, "transient", "The database of the store cannot be reached.", headers=headers)


def sqlstate_of(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


@contextmanager
def reachable() -> Generator[None]:
    """Turns the many ways in which a database is absent into one fault."""
    try:
        yield
    except (OSError, PoolTimeoutError):
        raise Away from None
    except DBAPIError as error:
        if sqlstate_of(error) == STATEMENT_TIMEOUT:
            raise Fault(504, "timeout", "The database needed too long for this request.") from None
        if error.connection_invalidated or sqlstate_of(error)[:2] in AWAY:
            raise Away from None
        raise


def engine_for(url: str, pool_size: int, statement_timeout_ms: int) -> AsyncEngine:
    """`url` is postgresql://…; a connection that the server dropped is replaced on use."""
    return create_async_engine(
        url.replace("postgresql://", "postgresql+asyncpg://", 1),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        connect_args={
            "server_settings": {"statement_timeout": str(statement_timeout_ms), "jit": "off"},
            "timeout": 5,
        },
    )


class Stale(Away):
    """A pooled connection turned out to be dead: another may live."""


def meaning(error: BaseException) -> BaseException:
    """What a failure of the driver is to our caller."""
    if isinstance(error, asyncpg.QueryCanceledError):
        return Fault(504, "timeout", "The database needed too long for this request.")
    state = str(getattr(error, "sqlstate", None) or "")
    dead = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    return Stale() if isinstance(error, dead) or (state and state[:2] in AWAY) else error


class Database:
    """Hands out connections in the isolation that the work needs."""

    def __init__(self, engine: AsyncEngine, datastore: int = 0) -> None:
        self.engine = engine
        self._pool_size = engine.pool.size() if isinstance(engine.pool, QueuePool) else 1
        self._datastore = datastore  # 0: the registry only, no row of any datastore is visible
        self._reader = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._serializable = engine.execution_options(isolation_level="SERIALIZABLE")

    def bound(self, datastore: int) -> Database:
        """The same pool; its connections see one datastore only (row-level security, ST-67)."""
        return Database(self.engine, datastore)

    async def read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Each statement on its own: no BEGIN, no COMMIT. A stale connection is met at most once."""
        try:
            return await self._read(work)
        except Away:
            return await self._read(work)

    async def _read(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        with reachable():
            async with self._reader.connect() as connection:
                await self._bind(connection)
                return await work(connection)

    async def fetch_row(self, statement: str, *values: object) -> asyncpg.Record | None:
        """The shortest way to one row, for the read that everybody makes: the pool's connection without the engine."""
        for _ in range(self._pool_size):
            try:
                return await self._fetch_row(statement, values)
            except Stale:  # the pool may hold more connections that the server dropped
                pass
        return await self._fetch_row(statement, values)

    async def _fetch_row(self, statement: str, values: tuple[object, ...]) -> asyncpg.Record | None:
        with reachable():
            try:
                held = await greenlet_spawn(self.engine.sync_engine.pool.connect)
            except asyncpg.PostgresError:
                raise Away from None
            try:
                driver: Any = held.driver_connection
                if held.info.get(BOUND) != self._datastore:
                    await driver.execute(BIND, str(self._datastore))
                    held.info[BOUND] = self._datastore
                return await driver.fetchrow(statement, *values)
            except BaseException as error:  # noqa: BLE001 - whatever ended it, the connection is in doubt
                await greenlet_spawn(held.invalidate)
                raise meaning(error) from None
            finally:
                await greenlet_spawn(held.close)

    async def write(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """READ COMMITTED: enough when the writer locks the rows it changes."""
        return await self._repeat(self.engine, work)

    async def serialize(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """SERIALIZABLE: two conditional creates with different criteria cannot both win (ST-18)."""
        return await self._repeat(self._serializable, work)

    async def _bind(self, connection: AsyncConnection) -> None:
        """Once per connection and change of datastore: most requests find theirs bound already."""
        if connection.info.get(BOUND) != self._datastore:
            await connection.execute(_BIND, {"datastore": str(self._datastore)})
            connection.info[BOUND] = self._datastore

    async def _transact(self, connection: AsyncConnection, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """What a transaction bound is unbound when it rolls back."""
        try:
            async with connection.begin():
                await self._bind(connection)
                return await work(connection)
        except BaseException:
            if not connection.invalidated:
                connection.info.pop(BOUND, None)
            raise

    async def _repeat(self, engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        pause = PAUSE_SECONDS
        for _ in range(MOST_ATTEMPTS):
            try:
                with reachable():
                    async with engine.connect() as connection:
                        return await self._transact(connection, work)
            except Raced:
                pass
            except DBAPIError as error:
                if sqlstate_of(error) not in RETRIED:
                    raise
            await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - jitter, not a secret
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        raise Fault(409, "conflict", "Too many writers compete for the same resources; try again.")
