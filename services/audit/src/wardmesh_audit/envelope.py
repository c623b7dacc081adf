"""From one AUDIT_IN message to rows: each line an event, what is none a malformed one, nothing dropped."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from wardmesh_audit.merkle import leaf_hash
from wardmesh_audit.projection import MALFORMED, BadLeaf, project
from wardmesh_common.leaf import LEAF_LIMIT
from wardmesh_common.stamp import uuid7

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# phase .. purpose, break_glass, request_id .. producer_seq: a malformed row has no other columns
_NOTHING_ELSE = (None,) * 7 + (False,) + (None,) * 5


class Row(Struct, kw_only=True, gc=False):
    """One line on its way into the ledger."""

    event_id: uuid.UUID
    projected: tuple[Any, ...]  # projection.PROJECTED
    leaf: bytes
    leaf_hash: bytes
    stream_seq: int
    line: int
    received: datetime
    raw: bytes = b""  # only when the line was too long to be a leaf

    @property
    def malformed(self) -> bool:
        return self.projected[3] == MALFORMED


def rows_of(stream: str, stream_seq: int, received: datetime, body: bytes) -> list[Row]:
    """The rows of one message. Empty lines carry nothing; a message of nothing else is one malformed row."""
    return list(each_row(stream, stream_seq, received, body))


def each_row(stream: str, stream_seq: int, received: datetime, body: bytes) -> Iterator[Row]:
    """The same one by one."""
    lines = [line for line in body.split(b"\n") if line] or [b""]
    for number, line in enumerate(lines):
        yield _row(stream, stream_seq, number, received, line)


def malformed_row(stream: str, row: Row, attempt: int) -> Row:
    """The same line as a malformed row: its id comes from where it lies in the stream, so redelivery finds it again."""
    made = _malformed(stream, row.stream_seq, row.line, row.received, row.leaf, attempt)
    made.raw = row.raw
    return made


def _row(stream: str, stream_seq: int, number: int, received: datetime, line: bytes) -> Row:
    if len(line) > LEAF_LIMIT:
        return _malformed(stream, stream_seq, number, received, line)
    try:
        projected = project(line)
    except BadLeaf:
        return _malformed(stream, stream_seq, number, received, line)
    return Row(
        event_id=projected[0],
        projected=projected,
        leaf=line,
        leaf_hash=leaf_hash(line),
        stream_seq=stream_seq,
        line=number,
        received=received,
    )


def _malformed(stream: str, stream_seq: int, number: int, received: datetime, line: bytes, attempt: int = 0) -> Row:
    place = hashlib.sha256(f"{stream}\x1f{stream_seq}\x1f{number}\x1f{attempt}".encode()).digest()
    event_id = uuid.UUID(uuid7(int(received.timestamp() * 1000), place[:10]))
    raw = b""
    if len(line) > LEAF_LIMIT:
        raw = line
        digest = hashlib.sha256(line).hexdigest()
        line = b'{"length":%d,"malformed":"oversize","sha256":"%s"}' % (len(raw), digest.encode())
    projected = (event_id, received, None, MALFORMED, *_NOTHING_ELSE)
    return Row(
        event_id=event_id,
        projected=projected,
        leaf=line,
        leaf_hash=leaf_hash(line),
        stream_seq=stream_seq,
        line=number,
        received=received,
        raw=raw,
    )


def instant(nanoseconds: int) -> datetime:
    """A JetStream timestamp with the microseconds PostgreSQL keeps."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
