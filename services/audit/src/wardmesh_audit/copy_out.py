"""Reads rows of a log as COPY sends them, binary and in order: no object per column while a row is as it should be."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from wardmesh_audit.ledger import Connection
from wardmesh_audit.projection import BadLeaf
from wardmesh_audit.row_image import ORDER, Field, Images

_SIGNATURE = b"PGCOPY\n\xff\r\n\x00"
_START = len(_SIGNATURE) + 8  # flags, length of an extension that does not exist
_HEAD = struct.Struct(">hiqiqi32si")
_FIELDS = 4 + len(ORDER)
_END = b"\xff\xff"
_TOGETHER = 256 * 1024
_ROWS = (
    "select seq, recorded_at, leaf_hash, leaf, "  # noqa: S608 - names of columns only
    + ", ".join("event_id::text" if name == "event_id" else name for name in ORDER)
    + " from event where log_id = $1 and seq >= $2 and seq < $3 order by seq"
)


class BadStream(Exception):
    """What came is not what COPY sends: a fault of the connection or of the server."""


class CopiedRow(NamedTuple):
    """One row; `stored` holds its columns only when they are not what the leaf says, or were not looked at."""

    seq: int
    recorded: int  # microseconds since 2000
    leaf_hash: bytes
    leaf: bytes
    stored: dict[str, Field] | None


class CopyOut:
    """Hands every row of a range of indices to `take`, with constant memory."""

    def __init__(self, conn: Connection, log_id: int, take: Callable[[CopiedRow], None], *, since: int) -> None:
        self._conn = conn
        self._log_id = log_id
        self._take = take
        self._since = since  # older rows are only cut, not compared
        self._images = Images()

    async def rows(self, low: int, high: int) -> None:
        """Rows with low <= seq < high. What `take` raises ends it."""
        waiting = bytearray()
        started = False

        async def sink(data: bytes) -> None:
            nonlocal started
            waiting.extend(data)
            if not started and len(waiting) >= _START:
                if not waiting.startswith(_SIGNATURE):
                    raise BadStream
                del waiting[:_START]
                started = True
            if started and len(waiting) >= _TOGETHER:
                del waiting[: self._cut(bytes(waiting))]

        await self._conn.copy_from_query(_ROWS, self._log_id, low, high, output=sink, format="binary")
        rest = bytes(waiting)
        if not started or rest[self._cut(rest) :] != _END:
            raise BadStream

    def _cut(self, data: bytes) -> int:
        """Takes all whole rows; returns where the first incomplete one begins."""
        at = 0
        image, since = self._images.of, self._since
        while at + _HEAD.size <= len(data):
            fields, a, seq, b, recorded, c, hashed, length = _HEAD.unpack_from(data, at)
            if (fields, a, b, c) != (_FIELDS, 8, 8, 32) or length < 0:
                end = self._take_odd(data, at)
                if end < 0:
                    return at
                at = end
                continue
            start = at + _HEAD.size
            end = start + length
            leaf = data[start:end]
            made = None
            if recorded >= since:
                try:
                    made = image(leaf)
                except BadLeaf:
                    made = None
            if made is not None and data.startswith(made, end):
                self._take(CopiedRow(seq, recorded, hashed, leaf, None))
                at = end + len(made)
                continue
            columns = _columns(data, end, len(ORDER))
            if columns is None:
                return at
            values, at = columns
            self._take(CopiedRow(seq, recorded, hashed, leaf, _named(values)))
        return self._last(data, at)

    def _last(self, data: bytes, at: int) -> int:
        """A row shorter than usual may be whole although less than a usual head is there."""
        while (end := self._take_odd(data, at)) >= 0:
            at = end
        return at

    def _take_odd(self, data: bytes, at: int) -> int:
        """A row that does not look like the others: a column that may not be empty is. Its end, or -1 when cut off."""
        if data[at : at + 2] == _END or len(data) < at + 2:
            return -1
        if int.from_bytes(data[at : at + 2], "big") != _FIELDS:
            raise BadStream
        columns = _columns(data, at + 2, _FIELDS)
        if columns is None:
            return -1
        values, end = columns
        seq, recorded = (int.from_bytes(value or b"", "big", signed=True) for value in values[:2])
        self._take(CopiedRow(seq, recorded, values[2] or b"", values[3] or b"", _named(values[4:])))
        return end


def _columns(data: bytes, at: int, count: int) -> tuple[list[Field], int] | None:
    """So many columns and where they end; None when they are not all there yet."""
    values: list[Field] = []
    for _ in range(count):
        if at + 4 > len(data):
            return None
        length = int.from_bytes(data[at : at + 4], "big", signed=True)
        at += 4
        if length < 0:
            values.append(None)
            continue
        if at + length > len(data):
            return None
        values.append(data[at : at + length])
        at += length
    return values, at


def _named(values: list[Field]) -> dict[str, Field]:
    return dict(zip(ORDER, values, strict=True))
