"""Makes proofs out of the database: inclusion of an event, and consistency of two checkpoints."""

from __future__ import annotations

import uuid

from wardmesh_audit.ledger import Connection
from wardmesh_audit.merkle import consistency_ranges, inclusion_ranges
from wardmesh_audit.nodes import NodeReader
from wardmesh_audit.note import parse_checkpoint, split_note
from wardmesh_audit.proof import Proof


class NotThere(Exception):
    """There is no such event, or no checkpoint covers it yet."""


async def log_of(conn: Connection, event_id: uuid.UUID) -> int:
    """The log that holds an event; ids are unique per log, and a UUID is in one. Raises NotThere."""
    found: int | None = await conn.fetchval(
        "select log_id from event where event_id = $1 order by log_id limit 1", event_id
    )
    if found is None:
        raise NotThere("there is no event with this id")
    return found


async def prove(conn: Connection, event_id: uuid.UUID, *, log_id: int = 0) -> Proof:
    """Raises NotThere."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        row = await conn.fetchrow("select seq, leaf from event where log_id = $1 and event_id = $2", log_id, event_id)
        if row is None:
            raise NotThere("there is no event with this id")
        note: str | None = await conn.fetchval(
            "select note || coalesce(cosigs, '') from checkpoint where log_id = $1 and size > $2"
            " order by size desc limit 1",
            log_id,
            row["seq"],
        )
        if note is None:
            raise NotThere("no checkpoint covers this event yet")
        size = parse_checkpoint(split_note(note)[0]).size
        reader, spans = NodeReader(conn, log_id=log_id), inclusion_ranges(row["seq"], size)
        await reader.preload(spans)
        hashes = [await reader.range_root(*span) for span in spans]
        return Proof(index=row["seq"], leaf=row["leaf"], hashes=tuple(hashes), note=note)


async def consistency(conn: Connection, old: int, new: int, *, log_id: int = 0) -> list[bytes]:
    """The proof that the tree of size `old` is a prefix of the tree of size `new`."""
    if old in (0, new):
        return []
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        reader, spans = NodeReader(conn, log_id=log_id), consistency_ranges(old, new)
        await reader.preload(spans)
        return [await reader.range_root(*span) for span in spans]
