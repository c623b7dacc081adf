"""The gateway-private subjects: client replies, cancels and change events between replicas (mcp.md §3.3, 3.4, 3.6)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from wardmesh_common.contracts import GW_CANCEL, GW_EVENTS, GW_REPLY
from wardmesh_gateway.mcp_door import ReplicaBus

log = logging.getLogger("wardmesh.gateway")
T = TypeVar("T")


class ClientReply(Struct, kw_only=True):
    """A client's answer to a server request, on its way to the replica that waits for it."""

    exchange: str
    session: str  # digest; the owner feeds the reply only when both digests are those of the exchange
    principal: str
    message: dict[str, Any]


class ClientCancel(Struct, kw_only=True):
    """A legacy cancel. The request id keeps its type: 7 and "7" are two requests."""

    session: str
    principal: str
    request: int | str


class ChangeEvent(Struct, kw_only=True):
    """Something a subscriber wants to hear of: tools, prompts, resources, or one resource."""

    kind: str
    uri: str = ""


class Mail(Struct, kw_only=True, omit_defaults=True):
    """The envelope on all three subjects. Realms keep two faces of one process apart."""

    topic: str
    body: msgspec.Raw
    realm: str = ""


class Wire:
    """This replica's end of the gateway-private subjects."""

    def __init__(self, bus: ReplicaBus, realm: str = "") -> None:
        self._bus = bus
        self._realm = realm
        self._listeners: dict[str, Callable[[msgspec.Raw], Awaitable[None]]] = {}
        self._open = AsyncExitStack()

    @property
    def replica(self) -> str:
        return self._bus.instance

    def on(self, topic: str, kind: type[T], listener: Callable[[T], Awaitable[None]]) -> None:
        """One listener per topic, registered before the wire is opened."""

        async def decoded(body: msgspec.Raw) -> None:
            await listener(msgspec.msgpack.decode(body, type=kind))

        self._listeners[topic] = decoded

    async def open(self) -> None:
        for subject in (f"{GW_REPLY}.{self.replica}", GW_CANCEL, GW_EVENTS):
            subscription = await self._bus.nc.subscribe(subject, cb=self._take)
            self._open.push_async_callback(subscription.unsubscribe)
        # Only what the server knows is heard: a change told a moment after the start must not be missed.
        await self._bus.nc.flush()

    async def close(self) -> None:
        await self._open.aclose()

    async def tell_replica(self, replica: str, topic: str, body: Struct) -> None:
        await self._send(f"{GW_REPLY}.{replica}", topic, body)

    async def cancel(self, cancel: ClientCancel) -> None:
        await self._send(GW_CANCEL, "cancel", cancel)

    async def announce(self, event: ChangeEvent) -> None:
        await self.tell_all("event", event)

    async def tell_all(self, topic: str, body: Struct) -> None:
        """To every replica, this one too."""
        await self._send(GW_EVENTS, topic, body)

    async def _send(self, subject: str, topic: str, body: Struct) -> None:
        mail = Mail(topic=topic, body=msgspec.Raw(msgspec.msgpack.encode(body)), realm=self._realm)
        await self._bus.nc.publish(subject, msgspec.msgpack.encode(mail))

    async def _take(self, message: Any) -> None:
        try:
            mail = msgspec.msgpack.decode(message.data, type=Mail)
            listener = self._listeners.get(mail.topic)
            if listener is not None and mail.realm == self._realm:
                await listener(mail.body)
        except msgspec.DecodeError:
            # Only gateways may publish here: an older or newer replica's word, not an attack.
            log.warning("dropped an unreadable message between replicas")
