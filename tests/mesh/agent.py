"""An agent: the MCP SDK's client over streamable HTTP, with the bearer token of one person."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from mesh.healthlake import every_time, until


class Agent:
    """Tool calls with the JSON of their answers; `said` keeps everything that ever came back."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.said: list[str] = []

    async def ask(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The answer; an error answer has `error`."""
        result = await self._client.call_tool(tool, arguments)
        text = str(result.content[0].text)  # pyright: ignore[reportAttributeAccessIssue]
        self.said.append(text)
        answer: dict[str, Any] = json.loads(text)
        assert bool(result.is_error) == ("error" in answer), text
        return answer

    async def tools(self) -> dict[str, dict[str, Any]]:
        """Input schemas by name."""
        return {tool.name: tool.input_schema for tool in (await self._client.list_tools()).tools}

    async def wait(self, platform: str, timeout: int = 20) -> dict[str, Any]:
        """As a model does: once more while it is pending."""
        answer: dict[str, Any] = {}
        for _ in range(6):
            answer = await self.ask("wait_for_auth", platform_id=platform, timeout=timeout)
            if answer.get("error") != "timeout":
                break
        return answer

    async def refused(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The refusal, as soon as every replica has heard of what ended."""

        async def again() -> bool:
            return "error" in await self.ask(tool, **arguments)

        await until(lambda: every_time(again, times=12), seconds=20)  # sooner than what is remembered grows old
        return await self.ask(tool, **arguments)

    async def forget(self, platform: str) -> None:
        """Whatever an earlier test signed in to is over."""
        await self.ask("revoke_auth", platform_id=platform)


@contextlib.asynccontextmanager
async def agent(mesh: Any, person: str, mode: str = "2026-07-28") -> AsyncGenerator[Agent]:
    headers = {"Authorization": f"Bearer {mesh.token(person)}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=90) as http,
        Client(streamable_http_client(mesh.ready["mcp"], http_client=http), mode=mode) as client,
    ):
        yield Agent(client)
