"""Hands events to the stream in their order, each once: a round is an atomic batch, or goes one by one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_common.lean import LeanClient, NotConnected, header_block, status_of

# From this many messages on, a batch costs the server less than one sync for each of them (docs/adr/0006).
BATCH_FROM = 20
ACK_SECONDS = 5.0


class Unsent(Exception):
    """The stream has not taken the events, or did not say so: they are sent again."""


class Message(Struct, frozen=True):
    """`id` is the same whenever the same event is sent: the stream keeps the first and drops the others."""

    subject: str
    id: str
    body: bytes


class _Ack(Struct):
    stream: str = ""
    error: dict[str, Any] | None = None


_decoder = msgspec.json.Decoder(_Ack)


class Sender:
    """One per connection; one round at a time."""

    def __init__(self, nc: LeanClient) -> None:
        self._nc = nc
        self._inbox = f"{nc.inbox}.fed"
        self._round = 0  # what answers an abandoned round is ignored
        self._answer: asyncio.Future[_Ack] | None = None
        nc.lean_subscribe(f"{self._inbox}.*", self._on_ack)

    async def send(self, messages: Sequence[Message]) -> None:
        """Returns when the stream has stored them all, in this order. Raises Unsent."""
        if len(messages) >= BATCH_FROM and await self._together(messages):
            return
        # A batch is refused whole when one of its messages is stored already: a round whose answer got lost.
        for message in messages:
            ack = await self._asked(message, "")
            if ack.error or not ack.stream:
                raise Unsent("the stream refused an event")

    async def _together(self, messages: Sequence[Message]) -> bool:
        batch = f"Nats-Batch-Id: {self._nc.inbox[-8:]}.{self._round}\r\nNats-Batch-Sequence: "
        for number, message in enumerate(messages[:-1], 1):
            self._publish(message, f"{batch}{number}\r\n", "")
        ack = await self._asked(messages[-1], f"{batch}{len(messages)}\r\nNats-Batch-Commit: 1\r\n")
        return bool(ack.stream) and not ack.error

    async def _asked(self, message: Message, extra: str) -> _Ack:
        self._round += 1
        self._answer = asyncio.get_running_loop().create_future()
        try:
            self._publish(message, extra, f"{self._inbox}.{self._round}")
            async with asyncio.timeout(ACK_SECONDS):
                return await self._answer
        except TimeoutError:
            raise Unsent("no acknowledgement") from None
        finally:
            self._answer = None

    def _publish(self, message: Message, extra: str, reply: str) -> None:
        header = header_block(Nats_Msg_Id=message.id)[:-2] + extra.encode() + b"\r\n"
        try:
            self._nc.lean_publish(message.subject, message.body, reply=reply, header=header)
        except NotConnected:
            raise Unsent("the broker is away") from None

    def _on_ack(self, subject: bytes, _reply: bytes, data: bytes, header: bytes | None) -> None:
        answer = self._answer
        if answer is None or answer.done() or int(subject[len(self._inbox) + 1 :]) != self._round:
            return
        answer.set_result(_Ack() if status_of(header) else _decoder.decode(data))
