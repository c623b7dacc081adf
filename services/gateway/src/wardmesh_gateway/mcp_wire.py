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

T = TypeVar("T")
log = logging.getLogger("wardmesh.gateway")


class ClientReply(Struct, kw_only=True, omit_defaults=True):
    """A client's answer to a server request, on its way to the replica that waits for it."""

    exchange: str
    session: str  # digest; the owner feeds the reply only when both digests are those of the exchange
    principal: str
    message: dict[str, Any]


class ClientCancel(Struct, kw_only=True, omit_defaults=True):
    """A legacy cancel. The request id keeps its type: 7 and "7" are two requests."""

    session: str
    principal: str
    request: int | str


class ChangeEvent(Struct, kw_only=True, omit_defaults=True):
    """Something a subscriber wants to hear of: tools, prompts, resources, or one resource."""

    kind: str
    uri: str = ""


class PeerMessage(Struct, kw_only=True, omit_defaults=True):
    """Any other word from replica to replica; `topic` chooses the listener."""

    topic: str
    sender: str
    body: dict[str, Any]


class ReplicaMail(Struct, kw_only=True, omit_defaults=True):
    """What travels on gw.reply.<replica>: one of the two."""

    reply: ClientReply | None = None
    peer: PeerMessage | None = None


Listener = Callable[[Any], Awaitable[None]]


class Wire:
    """This replica's end of the gateway-private subjects."""

    def __init__(self, bus: ReplicaBus) -> None:
        self._bus = bus
        self._listeners: dict[str, Listener] = {}
        self._open = AsyncExitStack()

    @property
    def replica(self) -> str:
        return self._bus.instance

    def on(self, topic: str, listener: Listener) -> None:
        """`reply`, `cancel`, `event`, or the topic of a PeerMessage."""
        self._listeners[topic] = listener

    async def open(self) -> None:
        nc = self._bus.nc
        subjects = (
            (f"{GW_REPLY}.{self.replica}", self._mail),
            (GW_CANCEL, self._cancel),
            (GW_EVENTS, self._event),
        )
        for subject, handler in subjects:
            subscription = await nc.subscribe(subject, cb=handler)
            self._open.push_async_callback(subscription.unsubscribe)

    async def close(self) -> None:
        await self._open.aclose()

    async def reply(self, replica: str, reply: ClientReply) -> None:
        await self._send(f"{GW_REPLY}.{replica}", ReplicaMail(reply=reply))

    async def tell_peer(self, replica: str, topic: str, body: dict[str, Any]) -> None:
        message = PeerMessage(topic=topic, sender=self.replica, body=body)
        await self._send(f"{GW_REPLY}.{replica}", ReplicaMail(peer=message))

    async def cancel(self, cancel: ClientCancel) -> None:
        await self._send(GW_CANCEL, cancel)

    async def announce(self, event: ChangeEvent) -> None:
        await self._send(GW_EVENTS, event)

    async def _send(self, subject: str, message: Struct) -> None:
        await self._bus.nc.publish(subject, msgspec.msgpack.encode(message))

    async def _mail(self, message: Any) -> None:
        mail = _decode(message, ReplicaMail)
        if mail is not None and mail.reply is not None:
            await self._hand("reply", mail.reply)
        elif mail is not None and mail.peer is not None:
            await self._hand(mail.peer.topic, mail.peer)

    async def _cancel(self, message: Any) -> None:
        await self._hand("cancel", _decode(message, ClientCancel))

    async def _event(self, message: Any) -> None:
        await self._hand("event", _decode(message, ChangeEvent))

    async def _hand(self, topic: str, value: Any) -> None:
        listener = self._listeners.get(topic)
        if listener is not None and value is not None:
            await listener(value)


def _decode(message: Any, kind: type[T]) -> T | None:
    try:
        return msgspec.msgpack.decode(message.data, type=kind)
    except msgspec.DecodeError:
        # Only gateways may publish here: an older or newer replica's word, not an attack.
        log.warning("dropped an unreadable message between replicas", extra={"kind": kind.__name__})
        return None
