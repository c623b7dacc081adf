"""A gateway replica on a real port with a scripted mesh behind it, for clients that hold streams open."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from gateway.mcp_stage import Hub
from gateway.rest_stage import Stage
from wardmesh_common.listening import reserve
from wardmesh_common.questions import Changed, ToolsAnswer, ToolsQuestion
from wardmesh_gateway.app import build_router
from wardmesh_gateway.mcp import build_mcp
from wardmesh_gateway.mcp_door import McpSettings
from wardmesh_gateway.server import serving
from wardmesh_gateway.sign_in_steps import McpSignInSteps
from wardmesh_gateway.tool_mcp import McpDoor
from wardmesh_gateway.tools_smedrec import SMEDREC_TOOLS

WAIT = 10.0
BOTH = "application/json, text/event-stream"
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "Cursor", "version": "1.0.0"}}


class Hears:
    """What the mesh tells its gateways; `changed` tells it."""

    def __init__(self) -> None:
        self._handlers: dict[str, Any] = {}

    async def hear(self, subject: str, event_type: Any, handler: Any) -> None:
        del event_type
        self._handlers[subject] = handler

    async def changed(self, subject: str) -> None:
        await self._handlers[subject](Changed(version="2"))


@dataclass
class Served:
    """One replica: where it listens, what its mesh was asked, a client without cookies."""

    url: str
    stage: Stage
    hears: Hears
    http: httpx.AsyncClient

    async def post(self, message: Any, path: str = "/sse", **headers: str) -> httpx.Response:
        sent = {"accept": BOTH} | {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(path, json=message, headers=sent)

    async def begin(self, **headers: str) -> str:
        """A new MCP session."""
        answer = await self.post(request("initialize", HELLO), **headers)
        assert answer.status_code == 200, answer.text
        return answer.headers["mcp-session-id"]


def request(method: str, params: Any = None, number: int | str = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}}


@asynccontextmanager
async def sse_stage(hub: Hub | None = None, name: str = "gateway-00000001", **settings: Any) -> AsyncGenerator[Served]:
    sock: socket.socket = reserve("127.0.0.1", 0)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    given: dict[str, Any] = {"public_url": url, "cors_origins": "", **settings}
    stage = Stage(**given)
    stage.bus.answers[ToolsQuestion] = ToolsAnswer(allowed=tuple(tool.name for tool in SMEDREC_TOOLS))
    hears = Hears()
    face = build_mcp(
        door=McpDoor(stage.parts.calls, stage.parts.callers, stage.bus),
        sign_ins=McpSignInSteps(stage.parts.sign_in, stage.parts.callers),
        catalogue=stage.platforms,
        verifier=stage.parts.callers,
        limiter=stage.limits,
        settings=McpSettings(public_url=url, issuer="http://issuer.test", allowed_origins=stage.settings.origins),
        keys=[b"k" * 32],
        bus=(hub or Hub()).replica(name),
        hears=hears,
    )
    router = build_router(stage.settings, stage.parts, mcp=face, registered=frozenset())
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(face.lifespan())
        await stack.enter_async_context(serving(router, sock))
        stack.callback(face.drain)
        yield Served(url, stage, hears, await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=WAIT)))


class Events:
    """An open event stream, read event by event."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self._lines = answer.aiter_lines()

    async def next(self) -> tuple[str, str]:
        """Name and data of the next event; comments are passed over."""
        name = data = ""
        async for line in self._lines:
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                data = line.removeprefix("data: ")
            elif not line and (name or data):
                return name, data
        return "end", ""


@asynccontextmanager
async def listening(served: Served, **headers: str) -> AsyncGenerator[Events]:
    sent = {"accept": "text/event-stream"} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with served.http.stream("GET", "/sse", headers=sent) as answer:
        yield Events(answer)
