"""Reads rows of a log as COPY sends them, binary and in order: no object per column while a row is as it should be."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from wardmesh_audit.ledger import Connection
from wardmesh_audit.row_image import HEAD, TAIL, Field, Images

_SIGNATURE = b"PGCOPY\n\xff\r\n\x00"
_START = len(_SIGNATURE) + 8  # flags, length of an extension that does not exist
_NAMES = ("seq", "recorded_at", "leaf_hash", *HEAD, "leaf", *TAIL)
_HEAD = struct.Struct(">hiqiqi32siqiqi36si")
_END = b"\xff\xff"
_LEAF = sha256(b"\x00")  # every leaf hash begins so
# Less than this came: the next piece is given time to grow, every piece costs the event loop some calls of the kernel.
_LITTLE = 128 * 1024
_NAP_SECONDS = 0.0005
# Taken once and given back: from then on the C library keeps what is freed instead of returning it to the kernel. Every
# piece would be taken page by page otherwise, a third of what its way here costs.
_KEPT = 8 * 1024 * 1024
_ROWS = (
    "select "  # noqa: S608 - names of columns only
    + ", ".join("event_id::text" if name == "event_id" else name for name in _NAMES)
    + " from event where log_id = $1 and seq >= $2 and seq < $3 order by seq"
)


class BadStream(Exception):
    """What came is not what COPY sends: a fault of the connection or of the server."""


class Run(NamedTuple):
    """Leaf hashes of rows that follow each other, each what its leaf and its columns say."""

    first: int
    hashes: list[bytes]
    recorded: int  # of the last one, microseconds since 2000


class CopiedRow(NamedTuple):
    """A row to be looked at: it is not the next one, is older than asked for, or does not agree with itself."""

    seq: int
    recorded: int
    leaf_hash: bytes
    leaf: bytes
    stored: dict[str, Field]


class CopyOut:
    """Hands every row of a range of indices over, with constant memory: sound ones in runs, others one by one.

    `run` and `row` answer which index has to follow; a row with another one is never part of a run.
    """

    def __init__(
        self,
        conn: Connection,
        log_id: int,
        run: Callable[[Run], int],
        row: Callable[[CopiedRow], int],
        *,
        since: int,
    ) -> None:
        self._conn = conn
        self._log_id = log_id
        self._run = run
        self._row = row
        self._since = since  # rows recorded earlier are handed over one by one
        self._tail = Images().tail
        bytes(_KEPT)

    async def rows(self, low: int, high: int, following: int, limit: int) -> None:
        """Rows with low <= seq < high; `following` is the index to expect first, none from `limit` on is.

        What `run` or `row` raises ends it.
        """
        rest = bytes(0)
        started = False

        async def sink(data: bytes) -> None:
            nonlocal rest, started, following
            little = len(data) < _LITTLE
            data = rest + data if rest else data
            at = 0
            if not started and len(data) >= _START:
                if not data.startswith(_SIGNATURE):
                    raise BadStream
                started, at = True, _START
            if started:
                at, following = self._cut(data, at, following, limit)
            rest = data[at:]
            if little:
                await asyncio.sleep(_NAP_SECONDS)

        await self._conn.copy_from_query(_ROWS, self._log_id, low, high, output=sink, format="binary")
        if not started or rest != _END:
            raise BadStream

    def _cut(self, data: bytes, at: int, following: int, limit: int) -> tuple[int, int]:
        """Takes all whole rows; returns where the first incomplete one begins, and the index to expect there."""
        unpack, begun, tail, since, fields = _HEAD.unpack_from, _LEAF.copy, self._tail, self._since, len(_NAMES)
        hashes: list[bytes] = []
        last, size, view = 0, _HEAD.size, memoryview(data)
        while True:
            try:
                n, a, seq, b, recorded, c, hashed, d, occurred, e, number, f, identifier, length = unpack(view, at)
            except struct.error:
                pass  # a row shorter than usual may be whole all the same
            else:
                whole = n == fields and a == 8 and b == 8 and c == 32 and d == 8 and e == 8 and f == 36
                if whole and seq == following < limit and recorded >= since:
                    end = at + size + length
                    leaf = view[at + size : end]
                    digest = begun()
                    digest.update(leaf)
                    if digest.digest() == hashed:
                        made = tail(leaf, occurred, number, identifier)
                        if made is not None and data.startswith(made, end):
                            hashes.append(hashed)
                            last, following, at = recorded, seq + 1, end + len(made)
                            continue
            if hashes:
                following = self._run(Run(following - len(hashes), hashes, last))
                hashes = []
            row, at = _odd(data, at)
            if row is None:
                return at, following
            following = self._row(row)


def _odd(data: bytes, at: int) -> tuple[CopiedRow | None, int]:
    """A row with its columns, and where it ends; None when it is not all there."""
    if data[at : at + 2] == _END or len(data) < at + 2:
        return None, at
    if int.from_bytes(data[at : at + 2], "big") != len(_NAMES):
        raise BadStream
    end = at + 2
    values: list[Field] = []
    for _ in _NAMES:
        if end + 4 > len(data):
            return None, at
        length = int.from_bytes(data[end : end + 4], "big", signed=True)
        end += 4
        if end + max(length, 0) > len(data):
            return None, at
        values.append(data[end : end + length] if length >= 0 else None)
        end += max(length, 0)
    stored = dict(zip(_NAMES, values, strict=True))
    seq, recorded = (int.from_bytes(stored[name] or b"", "big", signed=True) for name in ("seq", "recorded_at"))
    return CopiedRow(seq, recorded, stored["leaf_hash"] or b"", stored["leaf"] or b"", stored), end
