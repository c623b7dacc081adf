"""A streaming proxy that picks the next backend for every single request: the worst load balancer for sessions."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_HEAD_LIMIT = 64 * 1024


class RoundRobin:
    """Raw bytes in and out; one request per connection, so that the client opens a new one for the next."""

    def __init__(self, backends: list[int]) -> None:
        self._next = itertools.cycle(backends)
        self.served = dict.fromkeys(backends, 0)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            return
        backend = next(self._next)
        self.served[backend] += 1
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", backend)
        except OSError:
            writer.close()
            return
        upstream_writer.write(_closing(head))
        up = asyncio.create_task(_relay(reader, upstream_writer))
        down = asyncio.create_task(_relay(upstream_reader, writer))
        # Either end gone means both gone: a client that hangs up must be seen by the backend, and the reverse.
        await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)
        upstream_writer.close()
        writer.close()


def _closing(head: bytes) -> bytes:
    lines = [line for line in head[:-4].split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n"


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def round_robin(port: int, backends: list[int]) -> AsyncIterator[RoundRobin]:
    proxy = RoundRobin(backends)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", port, limit=_HEAD_LIMIT)
    try:
        yield proxy
    finally:
        server.close()
