"""`wardmesh-audit fsck`: does the database agree with itself? Tiles, uniqueness, indexes against the heap, strays."""

from __future__ import annotations

from typing import Any

from wardmesh_audit.findings import Finding, Report
from wardmesh_audit.ledger import Connection
from wardmesh_audit.merkle import HASH_BYTES
from wardmesh_audit.tiles import WIDTH, Tile, full_tiles_between, inner_nodes, subtree

_BUCKET = 4096  # rows whose fingerprints are compared together; only differing buckets are looked at row by row

# Planner settings that make a question read the heap alone, or walk through the index that has the wanted order.
_HEAP = ("enable_indexscan = off", "enable_indexonlyscan = off", "enable_bitmapscan = off", "enable_seqscan = on")
_INDEX = (
    "enable_indexscan = on",
    "enable_indexonlyscan = off",
    "enable_bitmapscan = off",
    "enable_seqscan = off",
    "enable_sort = off",
    "enable_incremental_sort = off",
)

# Index -> a condition that covers all rows it has to hold, and the order in which it holds them.
_INDEXES = {
    "seq": ("seq >= 0", "seq"),
    "event_id": ("event_id >= '00000000-0000-0000-0000-000000000000'", "event_id"),
    "patient_ref": ("patient_ref >= ''::bytea", "patient_ref, occurred_at"),
    "actor_id": ("actor_id >= ''", "actor_id, occurred_at"),
}
_PRINTS = """
select seq / {bucket} as bucket, count(*) as rows, sum(hashtextextended(event_id::text || seq::text, 0)) as print
from (select seq, event_id from event where log_id = $1 and {condition} {order} offset 0) e group by 1
"""
_ROWS = """
select seq from (select seq from event where log_id = $1 and {condition} {order} offset 0) e
where seq >= $2 and seq < $3
"""


class Fsck:
    """One run over one log inside one repeatable-read transaction of the reader."""

    def __init__(self, conn: Connection, origin: str, log_id: int = 0) -> None:
        self._conn = conn
        self._log_id = log_id
        self.report = Report(log=origin)

    async def run(self) -> Report:
        async with self._conn.transaction(isolation="repeatable_read", readonly=True):
            state = await self._conn.fetchrow("select size from tree_state where log_id = $1", self._log_id)
            if state is None:
                self.report.obstacle = "there is no such log"
                return self.report
            self.report.size = state["size"]
            signed = await self._conn.fetchrow(
                "select count(*) as notes, coalesce(max(size), 0) as size from checkpoint where log_id = $1",
                self._log_id,
            )
            assert signed is not None, "an aggregate always has a row"
            self.report.checkpoints = signed["notes"]
            await self._duplicates()
            for name, (condition, order) in _INDEXES.items():
                await self._index(name, condition, f"order by {order}")
            await self._strays()
            await self._tiles(signed["size"])
        return self.report

    async def _using(self, settings: tuple[str, ...]) -> None:
        for setting in settings:
            await self._conn.execute(f"set local {setting}")

    async def _duplicates(self) -> None:
        """Every partition has its own unique index: the same index in two months is for us to find."""
        await self._using(_HEAP)
        rows = await self._conn.fetch(
            "select seq, count(*) as n from event where log_id = $1 group by seq having count(*) > 1"
            " order by seq limit 50",
            self._log_id,
        )
        for row in rows:
            self._find("duplicate_index", row["seq"], f"{row['n']} rows have this index")

    async def _index(self, name: str, condition: str, order: str) -> None:
        heap = await self._prints(_HEAP, condition, "")
        if name == "seq":
            self.report.rows = sum(rows for rows, _ in heap.values())
        index = await self._prints(_INDEX, condition, order)
        for bucket in sorted(heap.keys() | index.keys()):
            if heap.get(bucket) != index.get(bucket):
                await self._differing(name, condition, order, bucket)

    async def _prints(self, settings: tuple[str, ...], condition: str, order: str) -> dict[int, tuple[int, Any]]:
        await self._using(settings)
        query = _PRINTS.format(bucket=_BUCKET, condition=condition, order=order)
        return {row["bucket"]: (row["rows"], row["print"]) for row in await self._conn.fetch(query, self._log_id)}

    async def _differing(self, name: str, condition: str, order: str, bucket: int) -> None:
        bounds = (bucket * _BUCKET, (bucket + 1) * _BUCKET)
        await self._using(_HEAP)
        query = _ROWS.format(condition=condition, order="")
        heap = {row["seq"] for row in await self._conn.fetch(query, self._log_id, *bounds)}
        await self._using(_INDEX)
        query = _ROWS.format(condition=condition, order=order)
        index = {row["seq"] for row in await self._conn.fetch(query, self._log_id, *bounds)}
        for seq in sorted(heap ^ index):
            where = "is missing in the index" if seq in heap else "stands in the index only"
            self._find("index", seq, f"this row {where} on {name}")
        if heap == index:
            self._find("index", bounds[0], f"the index on {name} does not hold every row of this range once")

    async def _strays(self) -> None:
        await self._using(_HEAP)
        rows = await self._conn.fetch(
            "select seq, event_id from event where log_id = $1 and tableoid::regclass::text like '%\\_default'"
            " order by seq limit 50",
            self._log_id,
        )
        for row in rows:
            self.report.add(
                Finding(
                    kind="default_partition",
                    index=row["seq"],
                    event_id=str(row["event_id"]),
                    detail="its id has a time that no month is kept for",
                    incomplete=True,
                )
            )

    async def _tiles(self, signed: int) -> None:
        """Level 0 against the rows that are there, every other level against the one below; none may be missing."""
        await self._using(("enable_indexscan = on", "enable_seqscan = on", "enable_sort = on"))
        for tile in full_tiles_between(0, signed):
            stored = await self._tile(tile.level, tile.number)
            if stored is None:
                self._find("tile", tile.number, f"the tile of level {tile.level} is missing")
                continue
            first = tile.number * WIDTH
            wanted = await (self._leaves(first) if tile.level == 0 else self._below(tile.level, first))
            for place, found in wanted.items():
                if stored[place * HASH_BYTES : (place + 1) * HASH_BYTES] != found:
                    self._find("tile", first + place, f"place {place} of tile {tile.number} at level {tile.level}")
                    break
            else:
                await self._inner(tile, stored)

    async def _tile(self, level: int, number: int) -> bytes | None:
        data: bytes | None = await self._conn.fetchval(
            "select data from tile where log_id = $1 and level = $2 and idx = $3", self._log_id, level, number
        )
        return data if data is not None and len(data) == WIDTH * HASH_BYTES else None

    async def _inner(self, tile: Tile, data: bytes) -> None:
        """Of tiles that were stored before inner nodes were kept there are none."""
        nodes: bytes | None = await self._conn.fetchval(
            "select inner_nodes from tile where log_id = $1 and level = $2 and idx = $3",
            self._log_id,
            tile.level,
            tile.number,
        )
        if nodes is not None and nodes != inner_nodes(data):
            self._find("tile", tile.number * WIDTH, f"the inner nodes of tile {tile.number} at level {tile.level}")

    async def _leaves(self, first: int) -> dict[int, bytes]:
        """What was dropped by retention is not there to compare: then the tile is all that is left."""
        rows = await self._conn.fetch(
            "select seq, leaf_hash from event where log_id = $1 and seq >= $2 and seq < $3",
            self._log_id,
            first,
            first + WIDTH,
        )
        return {row["seq"] - first: row["leaf_hash"] for row in rows}

    async def _below(self, level: int, first: int) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for place in range(WIDTH):
            data = await self._tile(level - 1, first + place)
            if data is not None:
                found[place] = subtree(data, 0, WIDTH)
        return found

    def _find(self, kind: str, index: int, detail: str) -> None:
        self.report.add(Finding(kind=kind, index=index, detail=detail))
