"""A datastore client of the tests: the official MCP client on the profile `healthlake`, with a person's token."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from mcp.client import Client
from mcp.client.extension import ClientExtension
from mcp.client.streamable_http import streamable_http_client

DEMO = "1234567890abcdef1234567890abcdef"
PERSON = "04c704c4-5d2d-4308-9c33-1690a6e47a6b"
JOB_SECONDS = 60.0


@dataclass
class Failed(Exception):
    """A tool answered with an error."""

    text: str
    structured: dict[str, Any]

    def __str__(self) -> str:
        return self.text


class Lake:
    """Calls tools by name, as a model would."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.called: set[str] = set()

    async def names(self) -> set[str]:
        return {tool.name for tool in (await self.client.list_tools()).tools}

    async def __call__(self, name: str, /, **arguments: Any) -> Any:
        self.called.add(name)
        result = await self.client.call_tool(name, arguments)
        text = result.content[0].text  # type: ignore[union-attr]
        if result.is_error:
            raise Failed(text, dict(result.structured_content or {}))
        answer = json.loads(text)
        assert answer == result.structured_content
        return answer

    async def finished(self, tool: str, datastore: str, job: str) -> dict[str, Any]:
        """The properties of a job that has ended."""
        kind = "ImportJobProperties" if "import" in tool else "ExportJobProperties"

        async def ended() -> dict[str, Any] | None:
            properties = (await self(tool, datastore_id=datastore, job_id=job))[kind]
            return properties if properties["JobStatus"] not in ("SUBMITTED", "IN_PROGRESS") else None

        return await until(ended)


async def until(look: Callable[[], Awaitable[Any]], seconds: float = JOB_SECONDS) -> Any:
    """What `look` finds, as soon as it finds something."""
    limit = time.monotonic() + seconds
    while not (found := await look()):
        assert time.monotonic() < limit, "it did not come about in time"
        await asyncio.sleep(0.1)
    return found


@asynccontextmanager
async def lake(
    mesh: Any,
    person: str = "demo_admin",
    *,
    profile: str = "healthlake",
    headers: Mapping[str, str] | None = None,
    mode: str = "auto",
    extensions: Sequence[ClientExtension] = (),
) -> AsyncGenerator[Lake]:
    """`headers` go along with every request; `mode` is the era that the client begins with."""
    sent = {"Authorization": f"Bearer {mesh.token(person)}", **(headers or {})}
    async with httpx2.AsyncClient(headers=sent, timeout=60) as http:
        transport = streamable_http_client(f"{mesh.ready['mcp']}/{profile}", http_client=http)
        async with Client(transport, mode=mode, extensions=extensions) as client:
            yield Lake(client)
