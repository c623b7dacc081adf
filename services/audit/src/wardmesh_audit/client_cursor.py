"""The cursor of a consumer: its place and the verified tree up to there, in one file of about 1 kB."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from wardmesh_audit.merkle import HASH_BYTES, BadFrontier, CompactRange, cover, fold, node_hash
from wardmesh_audit.note import Checkpoint
from wardmesh_audit.tiles import HEIGHT, WIDTH, Tile


class BadCursor(Exception):
    """The cursor file is damaged or belongs to another log."""


class Cursor(Struct, frozen=True, kw_only=True):
    """`next` is the first index that was not processed; the tree is never ahead of it."""

    log: int = 0
    next: int = 0
    size: int = 0
    frontier: bytes = b""
    note: str = ""  # newest verified checkpoint at or below `next`

    @property
    def text(self) -> str:
        """The cursor of audit.md: the last processed index, for ever valid; empty at the very beginning."""
        return f"{self.log}:{self.next - 1}" if self.next else ""


class _Stored(Struct, kw_only=True, forbid_unknown_fields=True):
    log: int
    next: int
    size: int
    frontier: str
    note: str


def load(path: Path, log: int) -> Cursor:
    """The stored cursor, or one at the beginning. Raises BadCursor."""
    if not path.exists():
        return Cursor(log=log)
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=_Stored)
        frontier = b64decode(stored.frontier, validate=True)
        CompactRange(stored.size, frontier)
    except (msgspec.MsgspecError, Base64Error, ValueError, BadFrontier, UnicodeDecodeError):
        raise BadCursor("the cursor file is damaged") from None
    if stored.log != log or not 0 <= stored.size <= stored.next:
        raise BadCursor("the cursor file is of another log, or damaged")
    return Cursor(log=log, next=stored.next, size=stored.size, frontier=frontier, note=stored.note)


def save(path: Path, cursor: Cursor) -> None:
    """Durable when it returns: a crash leaves the old cursor or the new one."""
    stored = _Stored(
        log=cursor.log,
        next=cursor.next,
        size=cursor.size,
        frontier=b64encode(cursor.frontier).decode(),
        note=cursor.note,
    )
    draft = path.with_name(path.name + ".new")
    with draft.open("wb") as out:
        out.write(msgspec.json.encode(stored) + b"\n")
        out.flush()
        os.fsync(out.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def begin_at(checkpoint: Checkpoint, note: str, read_tile: Callable[[str], bytes], *, log: int = 0) -> Cursor:
    """A cursor in the middle of a log: the tree up to a verified checkpoint, out of its tiles (`tile/<L>/<N>...`).

    Raises BadCursor when the tiles are not those of the checkpoint.
    """
    hashes = [_node(level, index, checkpoint.size, read_tile) for level, index in cover(0, checkpoint.size)]
    if fold(hashes) != checkpoint.root:
        raise BadCursor("the tiles are not those of this checkpoint")
    size = checkpoint.size
    return Cursor(log=log, next=size, size=size, frontier=b"".join(hashes), note=note)


def _node(level: int, index: int, size: int, read_tile: Callable[[str], bytes]) -> bytes:
    row, rest = divmod(level, HEIGHT)
    number, offset = divmod(index << rest, WIDTH)
    width = min(WIDTH, (size >> (HEIGHT * row)) - number * WIDTH)
    tile = read_tile(Tile(row, number, width).path)
    if len(tile) != width * HASH_BYTES:
        raise BadCursor("a tile has the wrong size")
    hashes = [tile[i * HASH_BYTES : (i + 1) * HASH_BYTES] for i in range(offset, offset + (1 << rest))]
    while len(hashes) > 1:
        hashes = [node_hash(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
    return hashes[0]
