"""The MCP face: edge, two SDK managers over one low-level Server, and the wire between replicas (mcp.md §3)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.lowlevel import Server
from mcp.shared.inbound import x_mcp_header_map
from mcp_types import (
    CallToolRequestParams,
    GetPromptRequestParams,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    SubscriptionsListenRequestParams,
)

from wardmesh_common.contracts import EVENT_CATALOGUE_CHANGED, EVENT_POLICY_CHANGED
from wardmesh_common.questions import Changed
from wardmesh_gateway.agent import Agents, load_aliases
from wardmesh_gateway.asgi import Receive, Scope, Send
from wardmesh_gateway.backchannel import ExchangeManager, Exchanges
from wardmesh_gateway.edge import Address, Edge, Tools
from wardmesh_gateway.edge_answers import Refusal
from wardmesh_gateway.edge_auth import WELL_KNOWN, BearerGate, ProtectedResource
from wardmesh_gateway.edge_origin import OriginGuard
from wardmesh_gateway.healthlake_jobs import JobTasks, JobWatch
from wardmesh_gateway.mcp_door import (
    Credentials,
    Door,
    HearsEvents,
    Limiter,
    McpSettings,
    PlatformCatalogue,
    ReplicaBus,
    SignInSteps,
)
from wardmesh_gateway.mcp_events import Listening, ReplicaEvents
from wardmesh_gateway.mcp_prompts import PromptHandlers
from wardmesh_gateway.mcp_quick import QuickCalls
from wardmesh_gateway.mcp_resources import ResourceHandlers
from wardmesh_gateway.mcp_server import Handlers, assemble
from wardmesh_gateway.mcp_sessions import SessionIds
from wardmesh_gateway.mcp_tasks import TASKS_EXTENSION, AnyTasks, Tasks, task_handlers
from wardmesh_gateway.mcp_tools import ToolHandlers
from wardmesh_gateway.mcp_wire import ChangeEvent, Wire
from wardmesh_gateway.security_records import SecurityRecords
from wardmesh_gateway.sign_in_tasks import SignInTasks
from wardmesh_gateway.sse_direct import DirectCalls
from wardmesh_gateway.sse_edge import PATHS as SSE_PATHS
from wardmesh_gateway.sse_ended import EndedSessions
from wardmesh_gateway.sse_face import build_sse

INSTRUCTIONS = (
    "FHIR health records behind policy and audit. Start with list_platforms, then get_capabilities, read and search. "
    "Answers may be masked or cut by policy; a refusal says why."
)


class McpFace:
    """Raw ASGI for /mcp, the profile paths below it, and the resource metadata. `owns` says which paths those are."""

    def __init__(
        self,
        *,
        server: Server[Any],
        tools: Tools,
        profiles: frozenset[str],
        keys: Sequence[bytes],
        settings: McpSettings,
        wire: Wire,
        listening: Listening,
        events: ReplicaEvents,
        address: Address,
        gate: BearerGate | None,
        limiter: Limiter | None,
        parameter_headers: frozenset[str] = frozenset(),
        quick: QuickCalls | None = None,
        security: SecurityRecords | None = None,
        hears: HearsEvents | None = None,
        callers: Credentials | None = None,
        direct: DirectCalls | None = None,
    ) -> None:
        exchanges, limit = Exchanges(wire), settings.max_body_bytes
        self._json = ExchangeManager(server, exchanges, json_response=True, max_body=limit)
        self._stream = ExchangeManager(server, exchanges, json_response=False, max_body=limit)
        guard = OriginGuard(settings.public_url, settings.allowed_hosts, settings.allowed_origins, parameter_headers)
        agents = Agents(load_aliases())
        self._ended = EndedSessions(wire)
        sessions = SessionIds(keys, ended=self._ended)
        self._edge = Edge(
            guard=guard,
            gate=gate,
            address=address,
            agents=agents,
            sessions=sessions,
            exchanges=exchanges,
            tools=tools,
            limiter=limiter,
            json_app=self._json.handle_request,
            stream_app=self._stream.handle_request,
            max_body=limit,
            quick=quick,
            security=security,
        )
        self._sse = build_sse(
            edge=self._edge,
            guard=guard,
            gate=gate,
            callers=callers,
            settings=settings,
            agents=agents,
            sessions=sessions,
            ended=self._ended,
            wire=wire,
            events=events,
            direct=direct,
            stream_app=self._stream.handle_request,
        )
        self._metadata = ProtectedResource(settings) if gate is not None else None
        self._paths = _paths(profiles)
        self._documents = _documents(profiles) if gate is not None else frozenset[str]()
        self._wire, self._listening, self._events, self._hears = wire, listening, events, hears

    def owns(self, path: str) -> bool:
        return path in self._paths or path in self._documents or self.knows_browsers(path)

    def knows_browsers(self, path: str) -> bool:
        """True for the path that takes cookies, so it speaks CORS as the other faces do (SM-13)."""
        return self._sse is not None and path in SSE_PATHS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        profile = self._paths.get(path)
        if profile is not None:
            await self._edge(scope, receive, send, profile)
            return
        if self._sse is not None and path in SSE_PATHS:
            await self._sse(scope, receive, send)
            return
        try:
            if self._metadata is None or path not in self._documents:
                raise Refusal(404, "Not found")
            await self._edge.public(scope, send, self._metadata.answer)
        except Refusal as refusal:
            await refusal.answer(send)

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Mounting an SDK app does not run its managers (mcp.md §8 trap 1): this does, and opens the wire."""
        async with self._json.run(), self._stream.run():
            await self._wire.open()
            await self._ended.ask()
            await self._follow()
            try:
                yield
            finally:
                self.drain()
                await self._wire.close()

    def drain(self) -> None:
        """Call it when the process begins to stop: long streams end in order, or nothing would ever finish."""
        self._listening.close()
        if self._sse is not None:
            self._sse.close()

    async def _follow(self) -> None:
        """Every replica hears of changes by itself: what it tells its listeners need not cross the wire."""
        if self._hears is None:
            return

        async def resources(_: Changed) -> None:
            await self._events.heard(ChangeEvent(kind="resources"))

        async def tools(_: Changed) -> None:
            await self._events.heard(ChangeEvent(kind="tools"))

        await self._hears.hear(EVENT_CATALOGUE_CHANGED, Changed, resources)
        await self._hears.hear(EVENT_POLICY_CHANGED, Changed, tools)


def _paths(profiles: frozenset[str]) -> dict[str, str]:
    paths = {"/mcp": "", "/mcp/": ""}
    for profile in profiles:
        paths |= {f"/mcp/{profile}": profile, f"/mcp/{profile}/": profile}
    return paths


def _documents(profiles: frozenset[str]) -> frozenset[str]:
    """Every place where clients look: below the root, with the path appended, and below the endpoint (OA-1)."""
    paths = [WELL_KNOWN, f"{WELL_KNOWN}/mcp", f"/mcp{WELL_KNOWN}"]
    for profile in profiles:
        paths += [f"{WELL_KNOWN}/mcp/{profile}", f"/mcp/{profile}{WELL_KNOWN}"]
    return frozenset(paths)


def _handlers(
    tools: ToolHandlers, resources: ResourceHandlers, prompts: PromptHandlers, tasks: Tasks, listening: Listening
) -> Handlers:
    return {
        "tools/list": (PaginatedRequestParams, tools.list),
        "tools/call": (CallToolRequestParams, tools.call),
        "resources/list": (PaginatedRequestParams, resources.list),
        "resources/templates/list": (PaginatedRequestParams, resources.templates),
        "resources/read": (ReadResourceRequestParams, resources.read),
        "prompts/list": (PaginatedRequestParams, prompts.list),
        "prompts/get": (GetPromptRequestParams, prompts.get),
        "subscriptions/listen": (SubscriptionsListenRequestParams, listening),
        **task_handlers(tasks),
    }


def build_mcp(
    *,
    door: Door,
    sign_ins: SignInSteps,
    catalogue: PlatformCatalogue,
    verifier: Credentials,
    limiter: Limiter | None,
    settings: McpSettings,
    keys: Sequence[bytes],
    bus: ReplicaBus,
    hears: HearsEvents | None = None,
    security: SecurityRecords | None = None,
) -> McpFace:
    """The product's face: tools through the door, resources and prompts of FG-25, bearer tokens always."""
    tasks, jobs = SignInTasks(sign_ins, keys), JobTasks(door, keys)
    tools = ToolHandlers(door, tasks, JobWatch(door, jobs))
    resources = ResourceHandlers(door, catalogue)
    prompts = PromptHandlers(lambda: tools.shelf)
    wire = Wire(bus)
    events = ReplicaEvents(wire)
    listening = Listening(events, resources.visible)
    server = assemble(
        "wardmesh",
        title="Wardmesh",
        version=settings.version,
        instructions=INSTRUCTIONS,
        schema=tools.schema,
        handlers=_handlers(tools, resources, prompts, AnyTasks(tasks, jobs), listening),
        keys=keys,
    )
    server.extensions[TASKS_EXTENSION] = {}
    headers = {name for tool in door.tools() for name in x_mcp_header_map(tool.input_schema).values()}
    return McpFace(
        server=server,
        tools=tools,
        profiles=frozenset(name for tool in door.tools() for name in tool.profiles),
        keys=keys,
        settings=settings,
        wire=wire,
        listening=listening,
        events=events,
        address=verifier,
        gate=BearerGate(verifier, settings),
        limiter=limiter,
        parameter_headers=frozenset(f"Mcp-Param-{name}" for name in headers),
        quick=QuickCalls(tools, server.server_info_stamp),
        security=security,
        hears=hears,
        callers=verifier,
        direct=DirectCalls(tools),
    )
