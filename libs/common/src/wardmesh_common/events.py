"""Events between services through FastStream: one publisher, every interested replica hears it (NB-1).

FastStream shares the lean connection: its broker's connect returns the client that the call path already uses.
Its parsing, dependency injection and middlewares cost hundreds of microseconds a message, which is why only
events go this way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeVar

import msgspec
from faststream.nats import NatsBroker
from faststream.nats.annotations import NatsMessage
from nats.aio.client import Client

from wardmesh_common.contracts import encode

E = TypeVar("E", bound=msgspec.Struct)


class SharedBroker(NatsBroker):
    """A FastStream broker on a connection that somebody else opened and will close."""

    def __init__(self, nc: Client) -> None:
        super().__init__(logger=None)
        self._shared = nc

    async def _connect(self) -> Client:
        self.config.connect(self._shared)
        return self._shared

    async def stop(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        """End the subscribers only; the connection belongs to the bus."""
        for subscriber in self.subscribers:
            await subscriber.stop()


class Events:
    """`tell` and `hear` of one service."""

    def __init__(self, nc: Client) -> None:
        self.broker = SharedBroker(nc)

    async def start(self) -> None:
        await self.broker.start()

    async def tell(self, subject: str, event: msgspec.Struct) -> None:
        """Publish an event; nobody needs to be there."""
        await self.broker.publish(encode(event), subject)

    async def hear(self, subject: str, event_type: type[E], handler: Callable[[E], Awaitable[None]]) -> None:
        """Run `handler` for every event, in order of arrival. Every replica hears every event."""
        decoder = msgspec.msgpack.Decoder(event_type)

        async def receive(message: NatsMessage) -> None:
            await handler(decoder.decode(message.body))

        subscriber = self.broker.subscriber(subject)
        subscriber(receive)
        await subscriber.start()

    async def stop(self) -> None:
        await self.broker.stop()
