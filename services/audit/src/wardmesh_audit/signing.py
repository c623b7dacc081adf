"""Checkpoints: read, sign once per size, store, and extend the tile cache; the primary key is the compare-and-swap."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from wardmesh_audit.guard import GuardTripped
from wardmesh_audit.ledger import Connection
from wardmesh_audit.nodes import NodeReader
from wardmesh_audit.note import Checkpoint, Signer, parse_checkpoint, split_note
from wardmesh_audit.prove import consistency
from wardmesh_audit.tiles import WIDTH, full_tiles_between, inner_nodes
from wardmesh_audit.witness import Contradicted

# The consistency proof from one size to another.
Prove = Callable[[int, int], Awaitable[list[bytes]]]


class Cosigners(Protocol):
    """The witnesses, as far as signing needs them."""

    async def cosign(self, note: str, prove: Prove) -> str: ...


_NOTE = "select root, note || coalesce(cosigs, '') as note from checkpoint"


async def newest(conn: Connection, log_id: int = 0) -> tuple[Checkpoint, str] | None:
    """The newest stored checkpoint and its note, with cosignatures."""
    row = await conn.fetchrow(f"{_NOTE} where log_id = $1 order by size desc limit 1", log_id)
    if row is None:
        return None
    return parse_checkpoint(split_note(row["note"])[0]), row["note"]


async def tree(conn: Connection, log_id: int = 0) -> tuple[int, bytes]:
    """Size and root of the committed tree, in one statement."""
    row = await conn.fetchrow("select size, root from tree_state where log_id = $1", log_id)
    if row is None:
        raise GuardTripped("the log has no tree state", database=0, outside=0)
    return row["size"], row["root"]


async def sign(
    conn: Connection, signer: Signer, size: int, root: bytes, log_id: int = 0, *, witnesses: Cosigners | None = None
) -> str:
    """The one note of this size, with cosignatures: ours, or that of another publisher which was first."""
    note = signer.sign(Checkpoint(signer.verifier.name, size, root).text())
    cosigs = await _cosigned(conn, note, witnesses, log_id) if witnesses else ""
    await conn.execute(
        "insert into checkpoint (log_id, size, root, note, cosigs) values ($1, $2, $3, $4, $5) on conflict do nothing",
        log_id,
        size,
        root,
        note,
        cosigs or None,
    )
    row = await conn.fetchrow(f"{_NOTE} where log_id = $1 and size = $2", log_id, size)
    if row is None or row["root"] != root:
        raise GuardTripped("another root was signed for this size", database=size, outside=size)
    return row["note"]


async def _cosigned(conn: Connection, note: str, witnesses: Cosigners, log_id: int) -> str:
    """Cosignature lines, none when no witness answered. Raises GuardTripped when one holds another history."""

    async def proof(old: int, new: int) -> list[bytes]:
        return await consistency(conn, old, new, log_id=log_id)

    try:
        return await witnesses.cosign(note, proof)
    except Contradicted as error:
        size, _ = await tree(conn, log_id)
        if error.fork or error.recorded > size:
            raise GuardTripped(str(error), database=size, outside=error.recorded) from None
        return ""  # another publisher was faster, and the database knows what it signed


async def store_tiles(conn: Connection, size: int, log_id: int = 0) -> int:
    """Stores the full tiles of a tree of this size that are not stored yet; a cache, so losing it costs only time."""
    last: int | None = await conn.fetchval("select max(idx) from tile where log_id = $1 and level = 0", log_id)
    done = 0 if last is None else last + 1
    reader = NodeReader(conn, log_id=log_id)
    made = 0
    for tile in full_tiles_between(done * WIDTH, size):
        data = await reader.tile(tile)
        await conn.execute(
            "insert into tile (log_id, level, idx, data, inner_nodes) values ($1, $2, $3, $4, $5)"
            " on conflict do nothing",
            log_id,
            tile.level,
            tile.number,
            data,
            inner_nodes(data),
        )
        made += 1
    return made
