"""Publishes committed events to AUDIT in order: the server refuses anything that is not the next index (audit.md 6)."""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64encode
from collections import deque
from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_common.lean import LeanClient, NotConnected, status_of

WINDOW = 256
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


class Outbox:
    """Pipelined publishing with at most 256 unacknowledged messages."""

    def __init__(self, nc: LeanClient, *, log_id: int = 0) -> None:
        self._nc = nc
        self._log_id = log_id
        self._inbox = f"{nc.inbox}.out.{secrets.token_hex(4)}"
        self._round = 0  # acknowledgements of an abandoned round are ignored
        self._waiting: deque[int] = deque()
        self._progress = asyncio.Event()
        self._failed = False
        self._sid = nc.lean_subscribe(f"{self._inbox}.*", self._on_ack)

    async def publish(self, rows: list[Committed]) -> None:
        """Returns when the stream has stored them all; raises OutOfOrder otherwise."""
        self._round += 1
        self._waiting.clear()
        self._failed = False
        for row in rows:
            while len(self._waiting) >= WINDOW:
                await self._step()
            self._send(row)
        while self._waiting:
            await self._step()

    async def publish_checkpoint(self, size: int, note: str) -> None:
        """Idempotent: a repeated size is a duplicate for the stream."""
        header = f"NATS/1.0\r\nNats-Msg-Id: checkpoint.{self._log_id}.{size}\r\n\r\n".encode()
        self._round += 1
        self._waiting.clear()
        self._failed = False
        self._waiting.append(size)
        self._raw(f"audit.checkpoint.{self._log_id}", note.encode(), header)
        while self._waiting:
            await self._step()

    def stop(self) -> None:
        self._nc.lean_forget(self._sid)

    def _send(self, row: Committed) -> None:
        self._waiting.append(row.seq)
        self._raw(subject_of(self._log_id, row), row.leaf, _header(self._log_id, row))

    def _raw(self, subject: str, body: bytes, header: bytes) -> None:
        try:
            self._nc.lean_publish(subject, body, reply=f"{self._inbox}.{self._round}", header=header)
        except NotConnected:
            raise OutOfOrder("the bus is away") from None

    async def _step(self) -> None:
        before = len(self._waiting)
        try:
            async with asyncio.timeout(ACK_SECONDS):
                while len(self._waiting) == before and not self._failed:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            raise OutOfOrder("no acknowledgement") from None
        if self._failed:
            raise OutOfOrder("the stream is not where we thought")

    def _on_ack(self, subject: bytes, _reply: bytes, data: bytes, header: bytes | None) -> None:
        if int(subject[len(self._inbox) + 1 :]) != self._round:
            return
        ack: dict[str, Any] = {} if status_of(header) else msgspec.json.decode(data)
        if "error" in ack or not ack.get("stream"):
            self._failed = True
        elif self._waiting:
            self._waiting.popleft()
        self._progress.set()


def subject_of(log_id: int, row: Committed) -> str:
    """`audit.v1.<log>.<class>.<action>.<purpose>`; what is missing is `_`."""
    tokens = [_token(row.event_type), _token(row.action), _token(row.purpose)]
    return f"audit.v1.{log_id}.{'.'.join(tokens)}"


def _token(text: str | None) -> str:
    """Column values come from producers: nothing of them may change the shape of a subject."""
    clean = (text or "_").translate(_UNSAFE)[:40]
    return clean if clean.isascii() and clean.isprintable() else "_"


def _header(log_id: int, row: Committed) -> bytes:
    kind = "application/octet-stream" if row.event_type == "malformed" else "application/cloudevents+json"
    lines = (
        f"NATS/1.0\r\nNats-Msg-Id: {log_id}.{row.seq}\r\nNats-Expected-Last-Sequence: {row.seq}\r\n"
        f"Audit-Log-Index: {row.seq}\r\nAudit-Leaf-Hash: {b64encode(row.leaf_hash).decode()}\r\n"
        f"Content-Type: {kind}\r\n"
    )
    if row.traceparent:
        lines += f"traceparent: {row.traceparent}\r\n"
    return f"{lines}\r\n".encode()
