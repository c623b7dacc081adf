"""The way back after a restored backup: missing rows come from AUDIT at their published indices, in that order."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from wardmesh_audit.counters import ADVANCE, counted
from wardmesh_audit.envelope import Row, malformed_row, rows_of
from wardmesh_audit.guard import Outside, check
from wardmesh_audit.jetstream import NothingStored, Requester, StoredMessage, api, last_sequence, message_at
from wardmesh_audit.ledger import NOTIFY_CHANNEL, Connection
from wardmesh_audit.merkle import CompactRange
from wardmesh_audit.note import Checkpoint
from wardmesh_audit.projection import COLUMNS, MALFORMED
from wardmesh_audit.streams import AUDIT_IN, audit_stream, consumer_of

_CHUNK = 500
_AT_ONCE = 32
# What was under way in the last ten minutes of the backup is delivered again.
_DONE = """
select max(stream_seq) from event where log_id = $1
  and recorded_at < (select max(recorded_at) from event where log_id = $1) - interval '10 minutes'
"""


class CannotRecover(Exception):
    """What is published and what is stored do not fit together, or somebody is still at work."""


class Recovered(Struct, frozen=True):
    rows: int
    size: int
    root: bytes
    again_from: int  # AUDIT_IN sequence from which everything is delivered once more


async def recover(
    conn: Connection, nc: Requester, operations: Requester, outside: Outside, log_id: int = 0
) -> Recovered:
    """Works with the rights of the writer while no writer and no publisher runs. Raises CannotRecover.

    One transaction: the database is either the old copy or complete. `operations` may reset the consumer.
    """
    restored: list[Row] = []
    async with conn.transaction():
        state = await conn.fetchrow("select size, frontier from tree_state where log_id = $1 for update nowait", log_id)
        if state is None:
            raise CannotRecover("the log has no tree state")
        tree = CompactRange(state["size"], state["frontier"])
        again_from = await _again_from(conn, log_id)
        _compare(outside.checkpoint, tree)
        for start in range(tree.size, outside.published, _CHUNK):
            chunk = range(start, min(start + _CHUNK, outside.published))
            rows = await _published(nc, chunk, log_id, again_from)
            first = tree.size
            records = [(log_id, first + i, *row.projected, None, row.leaf, row.leaf_hash) for i, row in enumerate(rows)]
            await conn.copy_records_to_table("event", records=records, columns=COLUMNS)
            for row in rows:
                tree.append(row.leaf_hash)
                _compare(outside.checkpoint, tree)
            values = (log_id, tree.size, tree.root(), tree.frontier(), first, *counted(rows))
            await conn.execute(ADVANCE, *values, False, NOTIFY_CHANNEL)
            restored += rows
        check(outside, tree.size, tree.root())
    await api(operations, f"CONSUMER.RESET.{AUDIT_IN}.{consumer_of(log_id)}", {"seq": again_from})
    return Recovered(len(restored), tree.size, tree.root(), again_from)


def _compare(checkpoint: Checkpoint | None, tree: CompactRange) -> None:
    if checkpoint is not None and checkpoint.size == tree.size and checkpoint.root != tree.root():
        raise CannotRecover("the restored tree is not the one that was signed")


async def _again_from(conn: Connection, log_id: int) -> int:
    """The AUDIT_IN sequence that was surely done with when the backup was made."""
    found: int | None = await conn.fetchval(_DONE, log_id)
    return (found or 0) + 1


async def _published(nc: Requester, indices: range, log_id: int, again_from: int) -> list[Row]:
    """The rows of these indices as they were published."""
    messages: list[StoredMessage] = []
    for start in range(0, len(indices), _AT_ONCE):
        part = indices[start : start + _AT_ONCE]
        try:
            messages += await asyncio.gather(*(message_at(nc, audit_stream(log_id), i + 1) for i in part))
        except NothingStored:
            raise CannotRecover("AUDIT does not hold an event that is missing") from None
    originals: dict[bytes, list[Row]] | None = None
    rows: list[Row] = []
    for message in messages:
        (row,) = rows_of(audit_stream(log_id), message.seq, message.received, message.data)
        if message.subject.split(".")[3] == MALFORMED:
            if originals is None:
                originals = await _malformed(nc, again_from)
            same = originals.get(row.leaf_hash)
            # Its id comes from where it lay in AUDIT_IN; when that is gone, the place in AUDIT makes one.
            row = same.pop(0) if same else malformed_row(audit_stream(log_id), row, 0)
        rows.append(row)
    return rows


async def _malformed(nc: Requester, again_from: int) -> dict[bytes, list[Row]]:
    """Lines of AUDIT_IN by their leaf hash, each as the malformed row it becomes."""
    found: dict[bytes, list[Row]] = {}
    for seq in range(again_from, await last_sequence(nc, AUDIT_IN) + 1):
        try:
            message = await message_at(nc, AUDIT_IN, seq)
        except NothingStored:
            continue
        for row in rows_of(AUDIT_IN, seq, message.received, message.data):
            made = row if row.malformed else malformed_row(AUDIT_IN, row, 0)
            found.setdefault(made.leaf_hash, []).append(made)
    return found
