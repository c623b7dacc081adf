"""The few ASGI words that the raw routes need: a request, a full answer, a streamed answer, a caller who hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, MutableMapping
from contextlib import aclosing
from typing import Any, TypeVar

from wardmesh_gateway.limits import read_body

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

T = TypeVar("T")

# A caller's hang-up is only looked for once a call takes longer than this: most are over before.
PATIENCE_SECONDS = 0.2


class HungUp(Exception):
    """The caller closed the connection while we worked for it; there is nobody to answer."""


class Request:
    """One HTTP request as the raw routes see it."""

    __slots__ = ("headers", "limit", "method", "path", "query", "receive", "scope")

    def __init__(self, scope: Scope, receive: Receive, limit: int) -> None:
        self.scope = scope
        self.receive = receive
        self.limit = limit
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: str = scope["query_string"].decode("latin-1")
        self.headers: list[Header] = scope["headers"]

    def header(self, name: bytes) -> str:
        """The first header of that (lower case) name, trimmed, or the empty string."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1").strip()
        return ""

    def joined(self, name: bytes) -> str:
        """All headers of that name as one list, in order."""
        return ",".join(value.decode("latin-1") for key, value in self.headers if key == name)

    async def body(self) -> bytes:
        """The whole body; raises TooLarge as soon as more than the limit was received."""
        return await read_body(self.receive, self.limit)

    async def unless_hung_up(self, work: Coroutine[Any, Any, T], patience: float = PATIENCE_SECONDS) -> T:
        """Do the work, but stop it when the caller goes away; raises HungUp then.

        The body must have been read before: from here on the channel is only listened to for the end.
        """
        task = asyncio.current_task()
        if task is None:
            return await work
        watcher: list[asyncio.Task[None]] = []
        gone: list[bool] = []

        async def watch() -> None:
            while (await self.receive())["type"] != "http.disconnect":
                pass
            gone.append(True)
            task.cancel()

        loop = asyncio.get_running_loop()
        timer = loop.call_later(patience, lambda: watcher.append(loop.create_task(watch())))
        try:
            return await work
        except asyncio.CancelledError:
            if gone and task.uncancel() == 0:
                raise HungUp from None
            raise
        finally:
            timer.cancel()
            for watching in watcher:
                watching.cancel()


async def respond(send: Send, status: int, headers: Iterable[Header], body: bytes, *, head: bool = False) -> None:
    """One whole answer. With `head` the length is that of the body, which stays behind."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": b"" if head else body})


async def respond_streamed(
    send: Send, status: int, headers: Iterable[Header], size: int, parts: AsyncGenerator[bytes, None]
) -> None:
    """A large answer piece by piece; `send` waits for a slow reader, and so does whoever produces the parts.

    A size below zero is not known yet: the end of the parts is the end of the answer.
    """
    length = [(b"content-length", str(size).encode())] if size >= 0 else []
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    async with aclosing(parts):  # who hangs up in the middle ends it now, not when somebody collects it
        async for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
