"""The listening socket of an HTTP service: bound here or inherited, and left without losing a request."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Protocol

from wardmesh_common.settings import BadSettings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# A client that connected just before the end has this long to send its request.
LAME_SECONDS = 0.5
_POLL_SECONDS = 0.02


class Serves(Protocol):
    """The parts of a running uvicorn.Server that a farewell needs."""

    @property
    def servers(self) -> Iterable[asyncio.AbstractServer]: ...

    @property
    def server_state(self) -> Any: ...


def reserve(host: str, port: int, inherited: Mapping[int, int] | None = None) -> socket.socket:
    """The bound port, not yet listening; or the socket that our parent holds for it (`inherited`: port -> fd).

    An inherited socket outlives us: connections wait in it while one process follows another.
    Raises BadSettings when the port is taken: a configuration fault, not a crash.
    """
    number = (inherited or {}).get(port)
    if number is not None:
        try:
            # A copy: the inherited one stays open, for this process may begin anew.
            return socket.socket(fileno=os.dup(number))
        except OSError as error:
            raise BadSettings(f"the inherited socket for port {port} is unusable: {error.strerror}") from None
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise BadSettings(f"cannot listen on port {port}: {error.strerror}") from None
    return sock


class Farewell:
    """An ASGI application whose server can be left: no new connections, and the open ones are told to close."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._leaving = False

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if not self._leaving:
            await self._app(scope, receive, send)
            return

        async def parting(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, parting)

    async def leave(self, server: Serves) -> None:
        """Accept nothing more and give who is already connected a moment: what they send is still answered."""
        self._leaving = True
        for listener in server.servers:
            listener.close()
        limit = asyncio.get_running_loop().time() + LAME_SECONDS
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            if not server.server_state.connections or asyncio.get_running_loop().time() > limit:
                return
