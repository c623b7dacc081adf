"""Publishes audit messages to JetStream over the bus: one request that waits for the stream's acknowledgement."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from wardmesh_common.lean import NotConnected, header_block, status_of

if TYPE_CHECKING:
    from wardmesh_common.bus import Bus

ATTEMPT_SECONDS = 1.0
INBOX_KIND = "r"


class PublishRefused(Exception):
    """The stream answered that it did not store the message; `code` is JetStream's (10077 = full)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"JetStream refused the message (error {code})")
        self.code = code


class _Error(Struct):
    err_code: int = 0
    code: int = 0


class _PubAck(Struct):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: _Error | None = None


_decoder = msgspec.json.Decoder(_PubAck)


class BusPublisher:
    """A recorder's `Publisher` on the service's own connection; a lost connection fails what waits at once."""

    def __init__(self, bus: Bus, *, attempt_seconds: float = ATTEMPT_SECONDS) -> None:
        self._nc = bus.nc
        self._attempt = attempt_seconds
        self._waiting: dict[str, asyncio.Future[int]] = {}
        self._count = 0
        bus.on_inbox[INBOX_KIND] = self._on_ack
        self._lost_before = self._nc.on_lost
        self._nc.on_lost = self._on_lost

    async def publish(self, subject: str, data: bytes, msg_id: str) -> None:
        """Returns when the stream has stored the message (or had it already); raises otherwise."""
        self._count += 1
        token = str(self._count)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        self._waiting[token] = future
        expiry = loop.call_later(self._attempt, _expire, future)
        try:
            self._nc.lean_publish(
                subject,
                data,
                reply=f"{self._nc.inbox}.w.{INBOX_KIND}.{token}",
                header=header_block(Nats_Msg_Id=msg_id),
            )
            await future
        finally:
            expiry.cancel()
            del self._waiting[token]

    def _on_ack(self, token: str, data: bytes, header: bytes | None) -> None:
        future = self._waiting.get(token)
        if future is None or future.done():
            return
        if status_of(header):
            future.set_exception(PublishRefused(status_of(header)))
            return
        try:
            ack = _decoder.decode(data)
        except msgspec.DecodeError:
            ack = _PubAck()
        if ack.error is not None:
            future.set_exception(PublishRefused(ack.error.err_code or ack.error.code))
        elif not ack.stream or ack.seq <= 0:
            future.set_exception(PublishRefused(0))  # some other responder: nothing is stored
        else:
            future.set_result(ack.seq)

    def _on_lost(self) -> None:
        self._lost_before()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(NotConnected())


def _expire(future: asyncio.Future[int]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
