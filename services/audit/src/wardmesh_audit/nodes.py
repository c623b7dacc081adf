"""Hashes of perfect subtrees out of the database: from stored tiles where there are any, else from the leaf hashes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from wardmesh_audit.ledger import Connection
from wardmesh_audit.merkle import HASH_BYTES, Node, cover, fold, node_hash
from wardmesh_audit.tiles import HEIGHT, WIDTH, Tile

_KEPT_TILES = 4096
_KEPT_ROOTS = 65536


class MissingLeaves(Exception):
    """The database does not hold the leaves that a hash needs."""


class NodeReader:
    """Reads inside one transaction of the caller, so that everything belongs to one state."""

    def __init__(self, conn: Connection, *, log_id: int = 0) -> None:
        self._conn = conn
        self._log_id = log_id
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._roots: dict[tuple[int, int], bytes] = {}  # of full tiles: one report asks for the same again and again

    async def preload(self, spans: Iterable[tuple[int, int]]) -> None:
        """Brings the tiles that these ranges need with one question instead of one each."""
        keys: set[tuple[int, int]] = set()
        for start, end in spans:
            for level, index in cover(start, end):
                tile_level, rest = divmod(level, HEIGHT)
                keys.add((tile_level, (index << rest) // WIDTH))
        wanted = sorted(key for key in keys if key not in self._kept)[:_KEPT_TILES]
        rows = await self._conn.fetch(
            "select level, idx, data from tile join unnest($2::smallint[], $3::bigint[]) as w (level, idx)"
            " using (level, idx) where log_id = $1",
            self._log_id,
            [level for level, _ in wanted],
            [number for _, number in wanted],
        )
        for row in rows:
            if len(row["data"]) == WIDTH * HASH_BYTES:
                self._kept[(row["level"], row["idx"])] = row["data"]

    async def range_root(self, start: int, end: int) -> bytes:
        """The root over the leaves [start, end)."""
        return fold([await self.node(node) for node in cover(start, end)])

    async def node(self, node: Node) -> bytes:
        level, index = node
        tile_level, rest = divmod(level, HEIGHT)
        first = index << rest
        hashes = await self.hashes(tile_level, first, 1 << rest)
        while len(hashes) > 1:
            hashes = [node_hash(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
        return hashes[0]

    async def tile(self, tile: Tile) -> bytes:
        """The bytes of a tile, full or partial, computed when it is not stored."""
        return b"".join(await self.hashes(tile.level, tile.number * WIDTH, tile.width))

    async def hashes(self, tile_level: int, first: int, count: int) -> list[bytes]:
        """`count` hashes of one tile row, beginning at `first`; they never reach beyond one tile."""
        number, offset = divmod(first, WIDTH)
        stored = await self._stored(tile_level, number)
        if stored is not None:
            return [stored[i * HASH_BYTES : (i + 1) * HASH_BYTES] for i in range(offset, offset + count)]
        if tile_level == 0:
            return await self._leaves(first, count)
        return [await self._full_tile_root(tile_level - 1, first + i) for i in range(count)]

    async def _full_tile_root(self, tile_level: int, number: int) -> bytes:
        known = self._roots.get((tile_level, number))
        if known is not None:
            return known
        hashes = await self.hashes(tile_level, number * WIDTH, WIDTH)
        while len(hashes) > 1:
            hashes = [node_hash(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
        if len(self._roots) < _KEPT_ROOTS:
            self._roots[(tile_level, number)] = hashes[0]
        return hashes[0]

    async def _stored(self, tile_level: int, number: int) -> bytes | None:
        key = (tile_level, number)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        data = await self._conn.fetchval(
            "select data from tile where log_id = $1 and level = $2 and idx = $3", self._log_id, tile_level, number
        )
        if data is None or len(data) != WIDTH * HASH_BYTES:
            return None
        self._kept[key] = data
        if len(self._kept) > _KEPT_TILES:
            self._kept.popitem(last=False)
        return data

    async def _leaves(self, first: int, count: int) -> list[bytes]:
        rows = await self._conn.fetch(
            "select seq, leaf_hash from event where log_id = $1 and seq >= $2 and seq < $3 order by seq",
            self._log_id,
            first,
            first + count,
        )
        if [row["seq"] for row in rows] != list(range(first, first + count)):
            raise MissingLeaves("leaves are missing")
        return [row["leaf_hash"] for row in rows]
