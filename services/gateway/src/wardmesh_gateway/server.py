"""uvicorn inside this process, under this process' own signals: starts, and stops without dropping a request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import uvicorn

from wardmesh_common.settings import BadSettings
from wardmesh_gateway.asgi import App

GRACE_SECONDS = 20


class QuietServer(uvicorn.Server):
    """Signals belong to the service: it drains first and then stops this server."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def reserve(host: str, port: int) -> socket.socket:
    """The bound port, not yet listening. Raises BadSettings when it is taken: a configuration fault, not a crash."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise BadSettings(f"cannot listen on port {port}: {error.strerror}") from None
    return sock


@asynccontextmanager
async def serving(app: App, sock: socket.socket) -> AsyncGenerator[None]:
    """Serve `app` on the socket until the block ends, then finish what runs."""
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http="httptools",
        loop="none",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = QuietServer(config)
    task = asyncio.create_task(server.serve(sockets=[sock]), name="http")
    try:
        await server.up.wait()
        yield
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await task
        sock.close()
