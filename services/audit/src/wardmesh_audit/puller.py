"""Pulls messages from a durable consumer with our own loop: no client fetch that can lose messages or spin (NB-14)."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from datetime import datetime

import msgspec
from msgspec import Struct
from nats.errors import Error as NatsError

from wardmesh_audit.envelope import instant
from wardmesh_common.lean import LeanClient, NotConnected

PULL_MESSAGES = 128
PULL_BYTES = 2 * 1024 * 1024  # a few transactions: what waits here, other replicas cannot write
PULL_SECONDS = 2.0
_RENEW_SECONDS = PULL_SECONDS + 0.5
_STILL_SECONDS = 1.5  # two of these and a late one are less than the consumer's ack_wait
_STILL_TIMES = 20  # who has not finished by then gets the message again, like everybody else
_PAUSE_SECONDS = 0.1  # between requests that the server or the connection refused at once


class Pulled(Struct, frozen=True):
    """One delivered message and where to acknowledge it."""

    stream_seq: int
    received: datetime  # when the stream stored it
    body: bytes
    ack_to: str
    deliveries: int
    events: int


class Puller:
    """Keeps one pull request standing while there is room; lost requests and reconnects are renewed by time."""

    def __init__(
        self, nc: LeanClient, stream: str, consumer: str, *, room: int = 2 * PULL_MESSAGES, acks: bool = True
    ) -> None:
        self._nc = nc
        self._acks = acks
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = f"{nc.inbox}.pull.{secrets.token_hex(4)}"
        self._room = room
        self._buffer: deque[Pulled] = deque()
        self._arrived = asyncio.Event()
        self._wanted = 0  # messages the standing request may still bring
        self._asked_at = 0.0
        self._events = 0
        self._enough = 1  # events that are worth waking up for
        self._held = False  # no request before the pause is over
        self._ended = False
        self._open: dict[str, int] = {}  # where to acknowledge what is not, and how often it was looked at
        self._looks: asyncio.TimerHandle | None = None
        self._sid = nc.lean_subscribe(self._inbox, self._on_message)

    async def take(self, events: int, linger_seconds: float) -> list[Pulled]:
        """Messages that are there: waits for the first, then at most `linger_seconds` for more."""
        while not self._buffer:
            await self._wait(_RENEW_SECONDS, 1)
        until = asyncio.get_running_loop().time() + linger_seconds
        while self._events < events and len(self._buffer) < self._room:
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                break
            await self._wait(left, events)
        taken: list[Pulled] = []
        count = 0
        while self._buffer and count < events:
            message = self._buffer.popleft()
            count += message.events
            taken.append(message)
        self._events -= count
        self._ask()
        return taken

    def acknowledge(self, messages: list[Pulled]) -> None:
        """Tells the server, one by one. A lost acknowledgement means redelivery, which the ledger drops."""
        self._settle(messages, b"+ACK")

    def forget(self, messages: list[Pulled]) -> None:
        """After a failure: gives the messages back, to be delivered again after a second."""
        self._settle(messages, b'-NAK {"delay":1000000000}')

    def give_back(self) -> None:
        """What is here and taken by nobody: somebody else may be able to write it."""
        if self._acks:
            self.forget(list(self._buffer))
        self._buffer.clear()
        self._events = 0

    async def end(self) -> None:
        """Gives back what is here and on its way to us: else it would wait for the consumer's time-out."""
        self._ended = True
        with contextlib.suppress(NatsError, NotConnected, TimeoutError):
            self._nc.lean_unsubscribe(self._sid)
            await self._nc.flush()
        self.stop()

    def stop(self) -> None:
        self.give_back()
        if self._looks is not None:
            self._looks.cancel()
        with contextlib.suppress(NotConnected):
            self._nc.lean_unsubscribe(self._sid)
        self._nc.lean_forget(self._sid)

    def _settle(self, messages: list[Pulled], answer: bytes) -> None:
        for message in messages:
            self._open.pop(message.ack_to, None)
            with contextlib.suppress(NotConnected):
                self._nc.lean_publish(message.ack_to, answer)

    def _hold(self, message: Pulled) -> None:
        self._open[message.ack_to] = 0
        if self._looks is None:
            self._looks = asyncio.get_running_loop().call_later(_STILL_SECONDS, self._look)

    def _look(self) -> None:
        """Says of what has been here for a while that it is being worked on, so that nobody else gets it."""
        self._looks = None
        for ack_to, looks in list(self._open.items()):
            if looks == _STILL_TIMES:
                del self._open[ack_to]
                continue
            self._open[ack_to] = looks + 1
            if looks:
                with contextlib.suppress(NotConnected):
                    self._nc.lean_publish(ack_to, b"+WPI")
        if self._open:
            self._looks = asyncio.get_running_loop().call_later(_STILL_SECONDS, self._look)

    async def _wait(self, seconds: float, events: int) -> None:
        """Returns when so many events are there, when a request ended, or when the time is over."""
        self._enough = events
        self._ask()
        self._arrived.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._arrived.wait()

    def _ask(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._held or self._ended or (self._wanted > 0 and now - self._asked_at < _RENEW_SECONDS):
            return
        batch = min(PULL_MESSAGES, self._room - len(self._buffer))
        if batch <= 0:
            return
        self._wanted, self._asked_at = batch, now
        request = {"batch": batch, "max_bytes": PULL_BYTES, "expires": int(PULL_SECONDS * 1e9)}
        try:
            self._nc.lean_publish(self._next, msgspec.json.encode(request), reply=self._inbox)
        except NotConnected:
            self._pause()

    def _pause(self) -> None:
        self._wanted = 0
        self._held = True
        asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        self._held = False
        self._arrived.set()

    def _on_message(self, _subject: bytes, reply: bytes, data: bytes, header: bytes | None) -> None:
        if not reply.startswith(b"$JS.ACK."):
            # 404 nothing there, 408 request over, 409 too large or busy, 503 nobody: not a message.
            if not (header or b"").startswith(b"NATS/1.0 100"):
                self._on_status()
            return
        self._wanted -= 1
        message = _pulled(reply.decode(), data)
        self._events += message.events
        self._buffer.append(message)
        if self._acks:
            self._hold(message)
        if self._events >= self._enough or len(self._buffer) >= self._room:
            self._arrived.set()
        elif self._wanted <= 0:
            self._ask()

    def _on_status(self) -> None:
        """The request is over. One that ended at once must not be repeated at once."""
        if asyncio.get_running_loop().time() - self._asked_at < _PAUSE_SECONDS and not self._buffer:
            self._pause()
            return
        self._wanted = 0
        self._arrived.set()


def _pulled(ack_to: str, body: bytes) -> Pulled:
    """`$JS.ACK[.<domain>.<account>].<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`."""
    parts = ack_to.split(".")
    start = 4 if len(parts) >= 11 else 2
    return Pulled(
        stream_seq=int(parts[start + 3]),
        received=instant(int(parts[start + 5])),
        body=body,
        ack_to=ack_to,
        deliveries=int(parts[start + 2]),
        events=body.count(b"\n") + 1,
    )
