"""Publishes committed events to AUDIT in order: the server refuses anything that is not the next index (audit.md 6)."""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64encode
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_audit.cosignature import cosignatures
from wardmesh_common.lean import LeanClient, NotConnected, header_block, status_of

# From this many messages on, a batch costs the server less than one sync for each of them (docs/adr/0006).
BATCH_FROM = 20
BATCH_MESSAGES = 500  # the server takes 1,000
BATCH_BYTES = 4 * 1024 * 1024  # the client sends it in one go
ACK_SECONDS = 5.0
_UNSAFE = str.maketrans(dict.fromkeys(" .*>\r\n\t\x00", "-"))


class OutOfOrder(Exception):
    """The stream is not where we thought (or the connection broke): read its last sequence and go on from there."""


class Committed(Struct, frozen=True):
    """What is published of one row."""

    seq: int
    event_type: str
    action: str | None
    purpose: str | None
    leaf: bytes
    leaf_hash: bytes
    traceparent: str


class _Ack(Struct):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Ack)


class Outbox:
    """Publishes round by round: a large round as one atomic batch, a small one message by message."""

    def __init__(self, nc: LeanClient, *, log_id: int = 0) -> None:
        self._nc = nc
        self._log_id = log_id
        self._name = secrets.token_hex(4)
        self._inbox = f"{nc.inbox}.out.{self._name}"
        self._round = 0  # acknowledgements of an abandoned round are ignored
        self._expected: deque[int] = deque()  # stream sequences still to be acknowledged; 0 = any
        self._done: asyncio.Future[None] | None = None
        self._sid = nc.lean_subscribe(f"{self._inbox}.*", self._on_ack)

    async def publish(self, rows: list[Committed]) -> None:
        """Returns when the stream has stored them all; raises OutOfOrder otherwise."""
        for part in _parts(rows):
            self._round += 1
            if len(part) < BATCH_FROM:
                self._expected = deque(row.seq + 1 for row in part)
                for row in part:
                    extra = f"Nats-Expected-Last-Sequence: {row.seq}\r\n"
                    self._send(row, extra, answered=True)
            else:
                self._expected = deque((part[-1].seq + 1,))
                self._send_batch(part)
            await self._acknowledged()

    async def publish_checkpoint(self, size: int, note: str) -> None:
        """Idempotent: a repeated size is a duplicate for the stream."""
        self._round += 1
        self._expected = deque((0,))
        header = header_block(
            Nats_Msg_Id=f"checkpoint.{self._log_id}.{size}", Audit_Cosignatures=str(cosignatures(note))
        )
        self._raw(f"audit.checkpoint.{self._log_id}", note.encode(), header, answered=True)
        await self._acknowledged()

    def stop(self) -> None:
        self._nc.lean_forget(self._sid)

    def _send_batch(self, rows: list[Committed]) -> None:
        """All or nothing: the server checks the place of the first message and stores what the last one closes."""
        batch = f"Nats-Batch-Id: {self._name}.{self._round}\r\nNats-Batch-Sequence: "
        last = len(rows)
        for number, row in enumerate(rows, 1):
            extra = f"{batch}{number}\r\n"
            if number == 1:
                extra += f"Nats-Expected-Last-Sequence: {row.seq}\r\n"
            if number == last:
                extra += "Nats-Batch-Commit: 1\r\n"
            self._send(row, extra, answered=number == last)

    def _send(self, row: Committed, extra: str, *, answered: bool) -> None:
        self._raw(subject_of(self._log_id, row), row.leaf, _header(self._log_id, row, extra), answered=answered)

    def _raw(self, subject: str, body: bytes, header: bytes, *, answered: bool) -> None:
        reply = f"{self._inbox}.{self._round}" if answered else ""
        try:
            self._nc.lean_publish(subject, body, reply=reply, header=header)
        except NotConnected:
            raise OutOfOrder("the bus is away") from None

    async def _acknowledged(self) -> None:
        self._done = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(ACK_SECONDS):
                await self._done
        except TimeoutError:
            raise OutOfOrder("no acknowledgement") from None
        finally:
            self._done = None

    def _on_ack(self, subject: bytes, _reply: bytes, data: bytes, header: bytes | None) -> None:
        done = self._done
        if int(subject[len(self._inbox) + 1 :]) != self._round or done is None or done.done():
            return
        ack = _Ack() if status_of(header) else _decoder.decode(data)
        wanted = self._expected.popleft()
        # A duplicate is at some other place in the stream: only a checkpoint may be one.
        if not ack.stream or ack.error or (wanted and (ack.seq != wanted or ack.duplicate)):
            done.set_exception(OutOfOrder("the stream is not where we thought"))
        elif not self._expected:
            done.set_result(None)


def _parts(rows: list[Committed]) -> Iterator[list[Committed]]:
    part: list[Committed] = []
    size = 0
    for row in rows:
        size += len(row.leaf)
        if part and (len(part) == BATCH_MESSAGES or size > BATCH_BYTES):
            yield part
            part, size = [], len(row.leaf)
        part.append(row)
    if part:
        yield part


def subject_of(log_id: int, row: Committed) -> str:
    """`audit.v1.<log>.<class>.<action>.<purpose>`; what is missing is `_`."""
    tokens = [_token(row.event_type), _token(row.action), _token(row.purpose)]
    return f"audit.v1.{log_id}.{'.'.join(tokens)}"


def _token(text: str | None) -> str:
    """Column values come from producers: nothing of them may change the shape of a subject."""
    clean = (text or "_").translate(_UNSAFE)[:40]
    return clean if clean.isascii() and clean.isprintable() else "_"


def _header(log_id: int, row: Committed, extra: str) -> bytes:
    kind = "application/octet-stream" if row.event_type == "malformed" else "application/cloudevents+json"
    lines = (
        f"NATS/1.0\r\nNats-Msg-Id: {log_id}.{row.seq}\r\n{extra}"
        f"Audit-Log-Index: {row.seq}\r\nAudit-Leaf-Hash: {b64encode(row.leaf_hash).decode()}\r\n"
        f"Content-Type: {kind}\r\n"
    )
    if row.traceparent:
        lines += f"traceparent: {row.traceparent}\r\n"
    return f"{lines}\r\n".encode()
