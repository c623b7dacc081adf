"""How far each log has grown: one question a quarter of a second for all who follow, none when nobody does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import asyncpg

_LOOK_SECONDS = 0.25


class Growth:
    """Followers of one process wait here together."""

    def __init__(self, pool: asyncpg.Pool, stopping: Callable[[], bool]) -> None:
        self._pool = pool
        self.stopping = stopping  # a replica that drains lets nobody wait
        self._moved = asyncio.Event()
        self._sizes: dict[int, int] = {}
        self._waiting = 0
        self._looking: asyncio.Task[None] | None = None

    async def size(self, log: int) -> int:
        """The number of committed events; 0 for a log that does not exist."""
        return await self._pool.fetchval("select size from tree_state where log_id = $1", log) or 0

    async def beyond(self, log: int, size: int, seconds: float) -> None:
        """Returns when the log is larger than `size`, after so many seconds, or when this replica stops."""
        self._waiting += 1
        if self._looking is None or self._looking.done():
            self._sizes.clear()
            self._looking = asyncio.create_task(self._look())
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while self._sizes.get(log, 0) <= size and not self.stopping():
                        self._moved.clear()
                        await self._moved.wait()
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look(self) -> None:
        while self._waiting:
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                rows = await self._pool.fetch("select log_id, size from tree_state")
                sizes = {row["log_id"]: row["size"] for row in rows}
                moved, self._sizes = sizes != self._sizes, sizes
                if moved or self.stopping():
                    self._moved.set()
            await asyncio.sleep(_LOOK_SECONDS)
