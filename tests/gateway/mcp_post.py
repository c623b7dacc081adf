"""One POST to the MCP face, driven by hand: its answer can be watched as it comes, and its caller can hang up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.mcp_stage import READER
from wardmesh_gateway.mcp import McpFace

WAIT = 5.0


def request(method: str, params: dict[str, Any], number: int | str = 7) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


class Post:
    """One POST driven by hand, so that its answer can be watched and its caller can hang up."""

    def __init__(self, app: McpFace, message: dict[str, Any], **headers: str) -> None:
        sent = {"host": "localhost", "content-type": "application/json", "authorization": f"Bearer {READER}"}
        sent |= {"accept": "application/json, text/event-stream"} | headers
        raw = [(name.encode(), value.encode()) for name, value in sent.items()]
        scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/mcp", "headers": raw}
        scope |= {"query_string": b"", "scheme": "http", "server": ("localhost", 80), "client": ("127.0.0.1", 1)}
        self._body: list[bytes] = [msgspec.json.encode(message)]
        self.gone = asyncio.Event()
        self.arrived = asyncio.Event()
        self.text = ""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.text += message.get("body", b"").decode()
        self.arrived.set()

    async def done(self) -> Post:
        async with asyncio.timeout(WAIT):
            await self.task
        return self

    def messages(self) -> list[dict[str, Any]]:
        lines = [line.removeprefix("data: ") for line in self.text.splitlines() if line.startswith("data: ")]
        return [msgspec.json.decode(line) for line in lines]

    async def message(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first message that fits, as soon as it is there."""
        async with asyncio.timeout(WAIT):
            while True:
                self.arrived.clear()
                found = next((message for message in self.messages() if wanted(message)), None)
                if found is not None:
                    return found
                await self.arrived.wait()
