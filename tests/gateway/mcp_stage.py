"""The MCP face in one process, with a fake door, fake tokens and a bus in memory: fakes are constructor arguments."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from wardmesh_common.contracts import Caller
from wardmesh_common.errors import Unauthenticated
from wardmesh_common.questions import PlatformFacts
from wardmesh_gateway.mcp import McpFace, build_mcp
from wardmesh_gateway.mcp_door import Credential, McpSettings, McpTool, Progress, Seen, ToolResult

KEYS = [b"k" * 32]
MODERN = "2026-07-28"
READER, WRITER, OTHER, BRIEF = "reader-token", "writer-token", "other-token", "brief-token"


def tool(name: str, **fields: Any) -> McpTool:
    properties = fields.pop("properties", {"platform_id": {"type": "string"}})
    schema = {"type": "object", "properties": properties, "required": list(fields.pop("required", ()))}
    schema |= {"additionalProperties": False}
    return McpTool(name=name, title=name.title(), description=f"Does {name}", input_schema=schema, **fields)


TOOLS = (
    tool(
        "search", properties={"platform_id": {"type": "string"}, "params": {"type": "object"}}, required=["platform_id"]
    ),
    tool("read"),
    tool("list_platforms", properties={}),
    tool("delete", read_only=False, destructive=True, scopes=("fhir.read", "fhir.write")),
    tool("slow", quick=False, profiles=("slow",)),
    tool("routed", properties={"region": {"type": "string", "x-mcp-header": "Region"}}),
)


@dataclass
class FakeDoor:
    """Answers, remembers, and when told to holds calls until they are cancelled."""

    registry: tuple[McpTool, ...] = TOOLS
    denied: frozenset[str] = frozenset()
    result: ToolResult = field(default_factory=lambda: ToolResult(structured={"ok": True}))
    calls: list[tuple[str, dict[str, Any], Caller]] = field(default_factory=list)
    hold: bool = False
    holding: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    def tools(self) -> tuple[McpTool, ...]:
        return self.registry

    async def allowed_tools(self, caller: Caller) -> frozenset[str]:
        return frozenset(tool.name for tool in self.registry) - self.denied

    async def call_tool(
        self, name: str, arguments: dict[str, Any], caller: Caller, *, progress: Progress | None = None
    ) -> ToolResult:
        self.calls.append((name, arguments, caller))
        if progress is not None:
            await progress(1.0, 2.0, "half way")
        if self.hold:
            self.holding.set()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.stopped.put_nowait(name)
                raise
        return self.result


@dataclass
class FakeSteps:
    """A sign-in that is as far as the test says."""

    seen: Seen = field(default_factory=Seen)
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    async def look(self, platform: str, handle: str, caller: Caller) -> Seen:
        self.asked.append(("look", platform, handle))
        return self.seen

    async def cancel(self, platform: str, handle: str, caller: Caller) -> None:
        self.asked.append(("cancel", platform, handle))
        self.seen = Seen(cancelled=True)


class FakeCredentials:
    """Four tokens: one reads, one writes, one is somebody else's, one expires in a moment."""

    def __init__(self) -> None:
        self._known = {
            READER: Credential(principal="p-reader", scopes=frozenset({"fhir.read"}), expires=4e9),
            WRITER: Credential(principal="p-writer", scopes=frozenset({"fhir.read", "fhir.write"}), expires=4e9),
            BRIEF: Credential(principal="p-brief", scopes=frozenset({"fhir.read"}), expires=time.time() + 0.5),
            OTHER: Credential(principal="p-other", scopes=frozenset({"fhir.read"}), expires=4e9),
        }

    async def check(self, bearer: str) -> Credential:
        if bearer not in self._known:
            raise Unauthenticated("no")
        return self._known[bearer]

    def address(self, scope: Mapping[str, Any]) -> str:
        return "192.0.2.7"

    def budget(self, caller: Caller) -> str:
        return caller.ip


class FakeLimiter:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.wait = 0

    async def admit(self, principal: str, tool: str) -> int:
        self.seen.append((principal, tool))
        return self.wait


class FakePlatforms:
    def platform(self, platform_id: str) -> PlatformFacts | None:
        known = PlatformFacts(id="store", name="Store", type="sandbox", capabilities=("patient_access", "crd"))
        return known if platform_id == "store" else None


class Hub:
    """A broker in memory: enough of NATS for the gateway-private subjects."""

    def __init__(self) -> None:
        self._subscribers: list[tuple[str, Any]] = []

    def replica(self, name: str) -> Replica:
        return Replica(self, name)

    async def publish(self, subject: str, payload: bytes = b"") -> None:
        for wanted, callback in tuple(self._subscribers):
            if wanted == subject:
                await callback(_Message(payload))

    async def flush(self) -> None:
        """Everything is heard at once here."""

    async def subscribe(self, subject: str, *, cb: Any) -> _Subscription:
        entry = (subject, cb)
        self._subscribers.append(entry)
        return _Subscription(lambda: self._subscribers.remove(entry))


@dataclass
class _Message:
    data: bytes


class _Subscription:
    def __init__(self, undo: Any) -> None:
        self._undo = undo

    async def unsubscribe(self) -> None:
        self._undo()


class Replica:
    def __init__(self, hub: Hub, name: str) -> None:
        self.nc, self.instance = hub, name


@dataclass
class Stage:
    """One replica with a client in front of it."""

    face: McpFace
    door: FakeDoor
    limiter: FakeLimiter
    client: httpx.AsyncClient

    async def modern(
        self, method: str, params: dict[str, Any] | None = None, *, token: str = READER, **headers: str
    ) -> httpx.Response:
        """A correct request of the stateless era; `headers` override (underscores stand for hyphens)."""
        params = dict(params or {})
        named = params.get("name") or params.get("uri")
        sent = {"mcp-protocol-version": MODERN, "mcp-method": method} | ({"mcp-name": named} if named else {})
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        params["_meta"] = modern_meta() | params.get("_meta", {})
        return await self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, token=token, **sent)

    async def legacy(
        self, method: str, params: dict[str, Any] | None = None, *, token: str = READER, **headers: str
    ) -> httpx.Response:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        return await self.post(message, token=token, **{"mcp-protocol-version": "2025-11-25"} | headers)

    async def post(self, message: Any, *, token: str = READER, path: str = "/mcp", **headers: str) -> httpx.Response:
        content = message if isinstance(message, bytes) else msgspec.json.encode(message)
        sent = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        sent |= {"authorization": f"Bearer {token}"} if token else {}
        return await self.client.post(path, content=content, headers=sent | headers)

    async def initialize(self, token: str = READER, **client: Any) -> str:
        """The session id of a fresh legacy handshake."""
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": client.get("capabilities", {"roots": {}, "elicitation": None}),
            "clientInfo": {"name": client.get("name", "Cursor"), "version": "1.0.0"},
        }
        answer = await self.legacy("initialize", params, token=token)
        assert answer.status_code == 200, answer.text
        return answer.headers["mcp-session-id"]


def modern_meta(**more: Any) -> dict[str, Any]:
    prefix = "io.modelcontextprotocol/"
    return {
        f"{prefix}protocolVersion": MODERN,
        f"{prefix}clientCapabilities": {},
        f"{prefix}clientInfo": {"name": "Test Client", "version": "2.1"},
    } | more


def result_of(answer: httpx.Response) -> dict[str, Any]:
    """The result, whether it came as JSON or at the end of a stream."""
    assert answer.status_code == 200, answer.text
    body = messages_of(answer)[-1]
    assert "result" in body, body
    return body["result"]


def messages_of(answer: httpx.Response) -> list[dict[str, Any]]:
    if answer.headers["content-type"].startswith("application/json"):
        return [answer.json()]
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [msgspec.json.decode(line) for line in lines]


@asynccontextmanager
async def stage(
    *,
    door: FakeDoor | None = None,
    steps: FakeSteps | None = None,
    hub: Any = None,
    name: str = "gateway-00000001",
    hears: Any = None,
    security: Any = None,
    verifier: Any = None,
    **settings: Any,
) -> AsyncIterator[Stage]:
    door, limiter = door or FakeDoor(), FakeLimiter()
    fields = {"public_url": "http://gateway.test", "issuer": "http://issuer.test"} | settings
    face = build_mcp(
        door=door,
        sign_ins=steps or FakeSteps(),
        catalogue=FakePlatforms(),
        verifier=verifier or FakeCredentials(),
        limiter=limiter,
        settings=McpSettings(**fields),
        keys=KEYS,
        bus=(hub or Hub()).replica(name),
        hears=hears,
        security=security,
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(face.lifespan())
        transport = httpx.ASGITransport(face, raise_app_exceptions=True)
        client = httpx.AsyncClient(transport=transport, base_url="http://gateway.test")
        yield Stage(face, door, limiter, await stack.enter_async_context(client))
