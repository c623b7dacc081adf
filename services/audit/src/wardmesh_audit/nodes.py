"""Hashes of perfect subtrees out of the database: from stored tiles where there are any, else from the leaf hashes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from wardmesh_audit.ledger import Connection
from wardmesh_audit.merkle import HASH_BYTES, Node, cover, fold
from wardmesh_audit.tiles import HALF, HEIGHT, WIDTH, Tile, parts, subtree

_KEPT_TILES = 4096
_PART_BYTES = HALF * HASH_BYTES
_ROOT_AT = _PART_BYTES + 1  # of the inner nodes: those half-way up come first, the root of the tile last

_PARTS = """
select level, idx, part, inner_nodes, case when part >= 0 then substr(data, part * $5 + 1, $5) end as hashes
from tile join unnest($2::smallint[], $3::bigint[], $4::smallint[]) as w (level, idx, part) using (level, idx)
where log_id = $1 and inner_nodes is not null
"""
_ROOTS = """
select idx, substr(inner_nodes, $5) as root from tile
where log_id = $1 and level = $2 and idx >= $3 and idx < $4 and inner_nodes is not null
"""


class MissingLeaves(Exception):
    """The database does not hold the leaves that a hash needs."""


class NodeReader:
    """Reads inside one transaction of the caller, so that everything belongs to one state."""

    def __init__(self, conn: Connection, *, log_id: int = 0) -> None:
        self._conn = conn
        self._log_id = log_id
        self._tiles: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        # What was brought before it is asked for: of full tiles some hashes, and those at the right edge of the tree.
        self._inner: dict[tuple[int, int], bytes] = {}
        self._parts: dict[tuple[int, int, int], bytes] = {}
        self._edges: dict[tuple[int, int], tuple[int, Sequence[bytes]]] = {}

    async def preload(self, spans: Iterable[tuple[int, int]]) -> None:
        """Brings what these ranges need with a few questions instead of one for each node."""
        wanted: dict[tuple[int, int, int], tuple[int, int]] = {}
        for start, end in spans:
            for level, index in cover(start, end):
                tile_level, rest = divmod(level, HEIGHT)
                first, last = index << rest, (index + 1) << rest
                number, place = divmod(first, WIDTH)
                key = (tile_level, number, place // HALF if (1 << rest) < HALF else -1)
                low, high = wanted.get(key, (first, last))
                wanted[key] = (min(first, low), max(last, high))
        columns = [[key[i] for key in wanted] for i in range(3)]
        for row in await self._conn.fetch(_PARTS, self._log_id, *columns, _PART_BYTES):
            self._inner[row["level"], row["idx"]] = row["inner_nodes"]
            if row["hashes"] is not None:
                self._parts[row["level"], row["idx"], row["part"]] = row["hashes"]
        edges: dict[tuple[int, int], tuple[int, int]] = {}
        for (level, number, _), (first, last) in wanted.items():
            if (level, number) not in self._inner:
                low, high = edges.get((level, number), (first, last))
                edges[level, number] = (min(first, low), max(last, high))
        for (level, number), (low, high) in edges.items():
            await self._edge(level, number, low, high)

    async def _edge(self, level: int, number: int, low: int, high: int) -> None:
        try:
            self._edges[level, number] = (low, await self.hashes(level, low, high - low))
        except MissingLeaves:
            return  # some of the nodes may be there all the same: they are looked for one by one

    async def range_root(self, start: int, end: int) -> bytes:
        """The root over the leaves [start, end)."""
        return fold([await self.node(node) for node in cover(start, end)])

    async def node(self, node: Node) -> bytes:
        level, index = node
        tile_level, rest = divmod(level, HEIGHT)
        first, count = index << rest, 1 << rest
        number, place = divmod(first, WIDTH)
        if count < HALF:
            part = self._parts.get((tile_level, number, place // HALF))
            if part is not None:
                return subtree(part, place % HALF, count)
        else:
            inner = self._inner.get((tile_level, number))
            if inner is not None:
                return subtree(inner, place // HALF, count // HALF)
        return subtree(b"".join(await self.hashes(tile_level, first, count)), 0, count)

    async def tile(self, tile: Tile) -> bytes:
        """The bytes of a tile, full or partial, computed when it is not stored."""
        return b"".join(await self.hashes(tile.level, tile.number * WIDTH, tile.width))

    async def hashes(self, tile_level: int, first: int, count: int) -> Sequence[bytes]:
        """`count` hashes of one tile row, beginning at `first`; they never reach beyond one tile."""
        number, offset = divmod(first, WIDTH)
        low, edge = self._edges.get((tile_level, number), (0, []))
        if low <= first and first + count <= low + len(edge):
            return edge[first - low : first - low + count]
        stored = await self._stored(tile_level, number)
        if stored is not None:
            return parts(stored, offset, count)
        if tile_level == 0:
            return await self._leaves(first, count)
        return await self._roots(tile_level - 1, first, count)

    async def _roots(self, tile_level: int, first: int, count: int) -> list[bytes]:
        """The roots of full tiles; of those whose inner nodes are not stored, out of their hashes."""
        rows = await self._conn.fetch(_ROOTS, self._log_id, tile_level, first, first + count, _ROOT_AT)
        known: dict[int, bytes] = {row["idx"]: row["root"] for row in rows}
        for number in range(first, first + count):
            if number not in known:
                hashes = await self.hashes(tile_level, number * WIDTH, WIDTH)
                known[number] = subtree(b"".join(hashes), 0, WIDTH)
        return [known[number] for number in range(first, first + count)]

    async def _stored(self, tile_level: int, number: int) -> bytes | None:
        key = (tile_level, number)
        if key in self._tiles:
            self._tiles.move_to_end(key)
            return self._tiles[key]
        data = await self._conn.fetchval(
            "select data from tile where log_id = $1 and level = $2 and idx = $3", self._log_id, tile_level, number
        )
        if data is None or len(data) != WIDTH * HASH_BYTES:
            return None
        self._tiles[key] = data
        if len(self._tiles) > _KEPT_TILES:
            self._tiles.popitem(last=False)
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
