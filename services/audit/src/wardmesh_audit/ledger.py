"""The write transaction: order by one row lock, COPY, compact range, commit; duplicates resolved inside."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from msgspec import Struct

from wardmesh_audit.counters import ADVANCE, counted
from wardmesh_audit.envelope import Row, malformed_row
from wardmesh_audit.merkle import CompactRange
from wardmesh_audit.projection import COLUMNS

_log = logging.getLogger("wardmesh.audit")

Connection = asyncpg.Connection | PoolConnectionProxy  # type: ignore[type-arg]

# The leaf hashes of those of these event ids that are stored.
Stored = Callable[[list[uuid.UUID]], Awaitable[dict[uuid.UUID, bytes]]]

_STAND_INS = 4
NOTIFY_CHANNEL = "wardmesh_audit"
NOTIFY_SECONDS = 0.2  # shorter than the publisher gathers: it sees what came without a word as well


class Appended(Struct, frozen=True):
    """What one transaction did; the caller acknowledges messages only after it has this."""

    rows: int
    duplicates: int
    malformed: int
    conflicts: tuple[int, ...]  # stream sequences of messages that reused an id for other bytes
    size: int


class Ledger:
    """Appends to one log on one connection. Any number of these may work at once: the row lock orders them."""

    def __init__(self, conn: Connection, stream: str, *, log_id: int = 0) -> None:
        self._conn = conn
        self._stream = stream
        self._log_id = log_id
        self._notified_at = -NOTIFY_SECONDS

    async def append(self, rows: Sequence[Row]) -> Appended:
        """One transaction for all rows. Raises on any database error: then nothing has happened."""
        try:
            return await self._transaction(rows, self._copy)
        except (asyncpg.UniqueViolationError, asyncpg.DataError):
            # Something is stored already or is not taken: once more from the start, with savepoints.
            return await self._transaction(rows, self._insert_carefully)

    async def _transaction(self, rows: Sequence[Row], insert: Callable[[_Batch, int], Awaitable[None]]) -> Appended:
        async with self._conn.transaction():
            state = await self._conn.fetchrow(
                "select size, frontier from tree_state where log_id = $1 for update", self._log_id
            )
            if state is None:
                raise LookupError("the log has no tree state")
            tree = CompactRange(state["size"], state["frontier"])
            batch = _Batch(self._stream, rows)
            await insert(batch, tree.size)
            if batch.rows:
                await self._advance(tree, batch.rows)
        conflicts = batch.conflicts
        if conflicts:
            _log.error("audit ids were reused with other bytes in %d messages", len(conflicts))
        return Appended(
            rows=len(batch.rows),
            duplicates=len(rows) - len(batch.rows),
            malformed=sum(1 for row in batch.rows if row.malformed),
            conflicts=conflicts,
            size=tree.size,
        )

    async def _insert_carefully(self, batch: _Batch, size: int) -> None:
        """COPY under a savepoint; after a refusal the stored ids decide, and the lock makes the second try final."""
        try:
            await self._try(batch, size)
        except asyncpg.UniqueViolationError:
            await batch.drop_stored(self._stored)
            await self._try(batch, size)
        except asyncpg.DataError:
            # A value that PostgreSQL does not take although our checks did: find it, keep it as malformed.
            await self._probe(batch, size)
            await self._try(batch, size)

    async def _try(self, batch: _Batch, size: int) -> None:
        async with self._conn.transaction():  # a savepoint
            await self._copy(batch, size)

    async def _copy(self, batch: _Batch, size: int) -> None:
        if batch.rows:
            await self._copy_rows(batch.rows, size)

    async def _copy_rows(self, rows: Sequence[Row], size: int) -> None:
        records = [_record(self._log_id, size + i, row) for i, row in enumerate(rows)]
        await self._conn.copy_records_to_table("event", records=records, columns=COLUMNS)
        oversize = [(self._log_id, row.event_id, row.raw) for row in rows if row.raw]
        if oversize:
            await self._conn.copy_records_to_table("malformed_payload", records=oversize)

    async def _stored(self, ids: list[uuid.UUID]) -> dict[uuid.UUID, bytes]:
        found = await self._conn.fetch(
            "select event_id, leaf_hash from event where log_id = $1 and event_id = any($2::uuid[])",
            self._log_id,
            ids,
        )
        return {record["event_id"]: record["leaf_hash"] for record in found}

    async def _probe(self, batch: _Batch, size: int) -> None:
        await batch.drop_stored(self._stored)
        for row in list(batch.rows):
            trial = self._conn.transaction()
            await trial.start()
            try:
                await self._copy_rows([row], size)
            except asyncpg.DataError:
                batch.demote(row)
            finally:
                await trial.rollback()
        await batch.drop_stored(self._stored)

    async def _advance(self, tree: CompactRange, rows: Sequence[Row]) -> None:
        first = tree.size
        tree.extend(row.leaf_hash for row in rows)
        now = asyncio.get_running_loop().time()
        notify = now - self._notified_at >= NOTIFY_SECONDS
        values = (self._log_id, tree.size, tree.root(), tree.frontier(), first, *counted(rows))
        await self._conn.execute(ADVANCE, *values, notify, NOTIFY_CHANNEL)
        if notify:
            self._notified_at = now


class _Batch:
    """The rows of one transaction on the way from what arrived to what is new."""

    def __init__(self, stream: str, rows: Sequence[Row]) -> None:
        self._stream = stream
        self.rows: list[Row] = []
        self._seen: dict[uuid.UUID, bytes] = {}
        self._stand_ins: dict[uuid.UUID, int] = {}  # malformed rows made for lines that reused an id
        for row in rows:
            self._take(row)

    @property
    def conflicts(self) -> tuple[int, ...]:
        """Stream sequences of the new rows that stand for a reused id; a redelivered conflict is not new."""
        return tuple(dict.fromkeys(row.stream_seq for row in self.rows if row.event_id in self._stand_ins))

    async def drop_stored(self, stored: Stored) -> None:
        """Drops what is in the ledger already; the same id with other bytes becomes a malformed row of its own id."""
        for _ in range(_STAND_INS):  # the stand-ins may be stored as well, from an earlier delivery
            known = await stored([row.event_id for row in self.rows])
            if not known:
                return
            rows, self.rows, self._seen = self.rows, [], {}
            for row in rows:
                if row.event_id not in known:
                    self._take(row)
                elif known[row.event_id] != row.leaf_hash:
                    self._take(self._stand_in(row))

    def demote(self, row: Row) -> None:
        self.rows[self.rows.index(row)] = malformed_row(self._stream, row, 0)

    def _take(self, row: Row) -> None:
        before = self._seen.get(row.event_id)
        if before is None:
            self._seen[row.event_id] = row.leaf_hash
            self.rows.append(row)
        elif before != row.leaf_hash:
            self._take(self._stand_in(row))

    def _stand_in(self, row: Row) -> Row:
        # Somebody may have taken the id of the stand-in on purpose: then the next one of the same place is used.
        made = malformed_row(self._stream, row, self._stand_ins.get(row.event_id, -1) + 1)
        self._stand_ins[made.event_id] = self._stand_ins.get(row.event_id, -1) + 1
        return made


def _record(log_id: int, seq: int, row: Row) -> tuple[Any, ...]:
    return (log_id, seq, *row.projected, row.stream_seq, row.leaf, row.leaf_hash)
