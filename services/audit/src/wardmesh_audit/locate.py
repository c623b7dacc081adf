"""Finds which row was changed when only a root disagrees: compares with the stored tiles and with the AUDIT stream."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from itertools import pairwise

from wardmesh_audit.ledger import Connection
from wardmesh_audit.merkle import HASH_BYTES, leaf_hash
from wardmesh_audit.tiles import WIDTH

# The leaf of an index as AUDIT holds it, or None.
Published = Callable[[int], Awaitable[bytes | None]]

_STREAM_LIMIT = 5000
_PREFETCH = 1000
_LEAVES = "select seq, event_id, leaf from event where log_id = $1 and seq >= $2 and seq < $3 order by seq"


class Locator:
    """Copies of leaf hashes other than the rows themselves. Tiles first, then what was published."""

    def __init__(self, conn: Connection, published: Published | None = None, *, log_id: int = 0) -> None:
        self._conn = conn
        self._published = published
        self._log_id = log_id

    async def changed(self, low: int, high: int) -> AsyncGenerator[tuple[int, uuid.UUID]]:
        """Rows in [low, high) whose leaf differs from a copy; none when no copy tells."""
        tile: tuple[int, bytes | None] = (-1, None)
        async with self._conn.transaction():
            async for row in self._conn.cursor(_LEAVES, self._log_id, low, high, prefetch=_PREFETCH):
                number, place = divmod(row["seq"], WIDTH)
                if tile[0] != number:
                    tile = (number, await self._tile(number))
                copy = tile[1][place * HASH_BYTES : (place + 1) * HASH_BYTES] if tile[1] else None
                if copy is None and self._published is not None and high - low <= _STREAM_LIMIT:
                    leaf = await self._published(row["seq"])
                    copy = leaf_hash(leaf) if leaf is not None else None
                if copy is not None and copy != leaf_hash(row["leaf"]):
                    yield row["seq"], row["event_id"]

    async def partition_missing(self) -> bool:
        """True when the month partitions have a hole: then rows are gone with their month."""
        months = [
            row["name"][-6:]
            for row in await self._conn.fetch(
                "select relid::regclass::text as name from pg_partition_tree('event') where isleaf order by 1"
            )
            if row["name"][-6:].isdigit()
        ]
        numbers = [int(month[:4]) * 12 + int(month[4:]) for month in months]
        holes = any(b != a + 1 for a, b in pairwise(numbers))
        return holes or not months

    async def _tile(self, number: int) -> bytes | None:
        data = await self._conn.fetchval(
            "select data from tile where log_id = $1 and level = 0 and idx = $2", self._log_id, number
        )
        return data if data is not None and len(data) == WIDTH * HASH_BYTES else None
