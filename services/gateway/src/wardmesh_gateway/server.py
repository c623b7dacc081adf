"""uvicorn inside this process, under this process' own signals: starts, and stops without dropping a request."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import uvicorn

from wardmesh_common.listening import Farewell
from wardmesh_common.quiet_server import QuietServer
from wardmesh_gateway.asgi import App

GRACE_SECONDS = 20


@asynccontextmanager
async def serving(app: App, sock: socket.socket) -> AsyncGenerator[None]:
    """Serve `app` on the socket until the block ends, then finish what runs."""
    farewell = Farewell(app)
    config = uvicorn.Config(
        farewell,  # type: ignore[arg-type]
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
        if server.up.is_set():
            await farewell.leave(server)
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await task
        sock.close()
