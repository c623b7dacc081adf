"""Change events for `subscriptions/listen`: heard from all replicas, granted per caller (mcp.md §3.6)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types import SubscriptionsListenRequestParams, SubscriptionsListenResult

from wardmesh_gateway.mcp_visit import visitor
from wardmesh_gateway.mcp_wire import ChangeEvent, Wire

_KINDS: dict[str, Callable[[], ServerEvent]] = {
    "tools": ToolsListChanged,
    "prompts": PromptsListChanged,
    "resources": ResourcesListChanged,
}


class ReplicaEvents:
    """A SubscriptionBus over gw.events: published to all replicas, delivered from memory."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._local = InMemorySubscriptionBus()
        wire.on("event", ChangeEvent, self.heard)

    async def publish(self, event: ServerEvent) -> None:
        await self._wire.announce(_wired(event))

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        return self._local.subscribe(listener)

    async def heard(self, event: ChangeEvent) -> None:
        """Also called directly for events that every replica hears by itself."""
        if event.kind == "resource":
            await self._local.publish(ResourceUpdated(uri=event.uri))
        elif (kind := _KINDS.get(event.kind)) is not None:
            await self._local.publish(kind())


def _wired(event: ServerEvent) -> ChangeEvent:
    if isinstance(event, ResourceUpdated):
        return ChangeEvent(kind="resource", uri=event.uri)
    return ChangeEvent(kind=next(kind for kind, made in _KINDS.items() if isinstance(event, made)))  # type: ignore[arg-type]


class Listening:
    """`subscriptions/listen`: only URIs that this caller may read, and not longer than the token lives."""

    def __init__(
        self, events: ReplicaEvents, visible: Callable[[str], bool], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._handler = ListenHandler(events)
        self._visible = visible
        self._clock = clock

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        visit = visitor(ctx)
        asked = params.notifications
        uris = [uri for uri in asked.resource_subscriptions or () if self._visible(uri)]
        granted = asked.model_copy(update={"resource_subscriptions": uris or None})
        lifetime = max(visit.expires - self._clock(), 0.0) if visit.expires else None
        with anyio.move_on_after(lifetime):
            return await self._handler(ctx, params.model_copy(update={"notifications": granted}))
        return SubscriptionsListenResult(_meta={SUBSCRIPTION_ID_META_KEY: ctx.request_id})

    def close(self) -> None:
        """Ends every stream with its result: clients then know that it ended on purpose (mcp.md §3.6)."""
        self._handler.close()
