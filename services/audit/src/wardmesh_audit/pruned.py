"""What retention has dropped: which indices, and the hashes of their leaves, which the level-0 tiles keep."""

from __future__ import annotations

from wardmesh_audit.ledger import Connection
from wardmesh_audit.merkle import HASH_BYTES
from wardmesh_audit.tiles import WIDTH


class Overtaken(Exception):
    """A month was dropped between two slices of one verification: it has to begin anew."""


class Pruned:
    """Reads inside the transaction of a verification. `rows` counts what was asked for and found."""

    def __init__(self, conn: Connection, log_id: int) -> None:
        self._conn = conn
        self._log_id = log_id
        self._ranges: list[tuple[int, int]] = []
        self._runs: int | None = None
        self._tiles: dict[int, bytes] = {}
        self.expected = 0
        self.rows = 0

    async def load(self) -> None:
        """Raises Overtaken when there are more runs than the last time."""
        runs = await self._conn.fetch(
            "select first_seq, last_seq, rows from retention_run where log_id = $1 and rows > 0", self._log_id
        )
        if self._runs not in (None, len(runs)):
            raise Overtaken
        self._runs = len(runs)
        self._ranges = [(run["first_seq"], run["last_seq"]) for run in runs]
        self.expected = sum(run["rows"] for run in runs)

    async def tiles(self, low: int, high: int) -> None:
        """Brings what may be asked for inside [low, high), instead of what was brought before."""
        self._tiles.clear()
        if any(first < high and low <= last for first, last in self._ranges):
            rows = await self._conn.fetch(
                "select idx, data from tile where log_id = $1 and level = 0 and idx >= $2 and idx <= $3",
                self._log_id,
                low // WIDTH,
                high // WIDTH,
            )
            self._tiles = {row["idx"]: row["data"] for row in rows}

    def hash_of(self, index: int) -> bytes | None:
        """The leaf hash of an index that retention may have dropped, None when it dropped nothing there."""
        if not any(first <= index <= last for first, last in self._ranges):
            return None
        number, place = divmod(index, WIDTH)
        hashed = self._tiles.get(number, b"")[place * HASH_BYTES : (place + 1) * HASH_BYTES]
        if len(hashed) != HASH_BYTES:
            return None
        self.rows += 1
        return hashed
