"""MCP sessions that their clients have ended: told to all replicas, and to a new one by those that are there (SM-4)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from wardmesh_gateway.mcp_wire import Wire

# Ids say themselves when they expire, so this only bounds what clients can make us remember.
MOST = 10_000
_TOPIC, _QUESTION = "ended", "ended?"


class Ended(Struct, kw_only=True):
    """Digests of sessions, oldest first."""

    sessions: tuple[str, ...]


class EndedAsked(Struct, kw_only=True):
    """A replica that has just started wants to know."""

    replica: str


class EndedSessions:
    """Session ids are signed and need no store; that one is over has to be remembered all the same."""

    def __init__(self, wire: Wire, *, most: int = MOST) -> None:
        self._wire = wire
        self._most = most
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._listeners: list[Callable[[str], None]] = []
        wire.on(_TOPIC, Ended, self._hear)
        wire.on(_QUESTION, EndedAsked, self._tell)

    def __contains__(self, session: str) -> bool:
        return session in self._ended

    def listen(self, listener: Callable[[str], None]) -> None:
        """Called once for every session that ends."""
        self._listeners.append(listener)

    async def end(self, session: str) -> None:
        """Here at once, at the other replicas as soon as they hear of it."""
        self._remember(session)
        await self._wire.tell_all(_TOPIC, Ended(sessions=(session,)))

    async def ask(self) -> None:
        """At the start: what has ended before we were there?"""
        await self._wire.tell_all(_QUESTION, EndedAsked(replica=self._wire.replica))

    async def _hear(self, ended: Ended) -> None:
        for session in ended.sessions:
            self._remember(session)

    async def _tell(self, asked: EndedAsked) -> None:
        if asked.replica != self._wire.replica and self._ended:
            await self._wire.tell_replica(asked.replica, _TOPIC, Ended(sessions=tuple(self._ended)))

    def _remember(self, session: str) -> None:
        if session in self._ended:
            return
        self._ended[session] = None
        if len(self._ended) > self._most:
            self._ended.popitem(last=False)
        for listener in self._listeners:
            listener(session)
