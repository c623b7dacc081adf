"""The raw ASGI edge of /mcp: everything that is decided before the SDK sees a request (mcp.md §3.1)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from wardmesh_common.contracts import Caller
from wardmesh_common.errors import Problem, WardmeshError
from wardmesh_common.vocabulary import Face
from wardmesh_gateway.agent import Agents
from wardmesh_gateway.asgi import App, Receive, Scope, Send, respond
from wardmesh_gateway.backchannel import Exchanges
from wardmesh_gateway.edge_answers import Refusal
from wardmesh_gateway.edge_auth import BearerGate
from wardmesh_gateway.edge_minting import minting
from wardmesh_gateway.edge_origin import OriginGuard, adding
from wardmesh_gateway.edge_request import Headers, Inbound
from wardmesh_gateway.edge_scope import inner_scope, negotiated_version, replaying
from wardmesh_gateway.edge_watch import until_hung_up
from wardmesh_gateway.limits import check_declared, read_body
from wardmesh_gateway.mcp_door import Credential, Limiter, McpTool
from wardmesh_gateway.mcp_narrowing import narrowing
from wardmesh_gateway.mcp_quick import QuickCalls
from wardmesh_gateway.mcp_sessions import McpSession, SessionIds, SessionUnknown
from wardmesh_gateway.mcp_visit import Visit
from wardmesh_gateway.security_records import SecurityRecords

NOBODY = Credential(principal="", scopes=frozenset(), expires=0.0)


class Guest(Struct, frozen=True, kw_only=True):
    """Who came to the edge, with which credential. `budget`: whose rate limit counts when it is not the principal's."""

    credential: Credential = NOBODY
    bearer: str = ""
    cookie: str = ""
    budget: str = ""


class Message(Struct, frozen=True, kw_only=True):
    """One message that was admitted, and how it is answered; `path` is named in challenges."""

    scope: Scope
    receive: Receive
    send: Send
    headers: Headers
    body: bytes
    inbound: Inbound
    guest: Guest
    visit: Visit
    path: str


class Tools(Protocol):
    """The catalogue snapshot: what the edge must know of a tool before it is called."""

    def tool(self, name: str) -> McpTool | None: ...


class Address(Protocol):
    def address(self, scope: Mapping[str, Any]) -> str: ...


class Edge:
    """Size, Host and Origin, preflight, bearer, method, body, era, session, agent, step-up, rate limit; then the SDK.

    `gate=None` is the anonymous conformance listener and nothing else.
    """

    def __init__(
        self,
        *,
        guard: OriginGuard,
        gate: BearerGate | None,
        address: Address,
        agents: Agents,
        sessions: SessionIds,
        exchanges: Exchanges,
        tools: Tools,
        limiter: Limiter | None,
        json_app: App,
        stream_app: App,
        max_body: int,
        quick: QuickCalls | None = None,
        security: SecurityRecords | None = None,
    ) -> None:
        self._guard, self._gate, self._address, self._agents = guard, gate, address, agents
        self._sessions, self._exchanges, self._tools, self._limiter = sessions, exchanges, tools, limiter
        self._json, self._stream, self._max_body = json_app, stream_app, max_body
        self._quick_calls, self._security = quick, security

    async def __call__(self, scope: Scope, receive: Receive, send: Send, profile: str = "") -> None:
        headers = Headers(scope["headers"])
        origin = headers.get(b"origin")
        try:
            self.check_size(headers)
            self._guard.check(headers.get(b"host"), origin)
            send = adding(send, self._guard.headers(origin))
            if scope["method"] == "OPTIONS" and headers.get(b"access-control-request-method"):
                await self._guard.preflight(send)
                return
            await self._admitted(scope, receive, send, headers, profile)
        except Refusal as refusal:
            self.note(refusal, scope, headers)
            await refusal.answer(send)

    def note(self, refusal: Refusal, scope: Scope, headers: Headers) -> None:
        """No call was made, so no station has recorded this (FG-19)."""
        if refusal.event and self._security is not None:
            code = refusal.event.partition(".")[2]
            problem = Problem(code=code, status=refusal.status, detail=refusal.message)
            caller = Caller(ip=self._address.address(scope), user_agent=headers.get(b"user-agent")[:256])
            self._security.note(refusal.event, problem, caller, Face.MCP)

    async def public(self, scope: Scope, send: Send, answer: Callable[[Send, str], Awaitable[None]]) -> None:
        """What needs no token (metadata), behind the same Host and Origin rules."""
        headers = Headers(scope["headers"])
        origin = headers.get(b"origin")
        self._guard.check(headers.get(b"host"), origin)
        send = adding(send, self._guard.headers(origin))
        if scope["method"] == "OPTIONS" and headers.get(b"access-control-request-method"):
            await self._guard.preflight(send)
        else:
            await answer(send, scope["method"])

    async def _admitted(self, scope: Scope, receive: Receive, send: Send, headers: Headers, profile: str) -> None:
        path = f"/mcp/{profile}" if profile else "/mcp"
        token, credential = "", NOBODY
        if self._gate is not None:
            token, credential = await self._gate.enter(headers.get(b"authorization"), path)
        if scope["method"] != "POST":
            raise Refusal(405, "Method not allowed", headers=((b"allow", b"POST"),))
        body = await self.read(headers, receive)
        inbound = Inbound(body, headers)
        session = None if inbound.modern else self._session(inbound, headers, credential)
        guest = Guest(bearer=token, credential=credential)
        visit = self.visit(scope, inbound, headers, session, guest, profile)
        message = Message(
            scope=scope,
            receive=receive,
            send=send,
            headers=headers,
            body=body,
            inbound=inbound,
            guest=guest,
            visit=visit,
            path=path,
        )
        await self.dispatch(message)

    async def dispatch(self, message: Message) -> None:
        """One message on its way."""
        inbound, visit = message.inbound, message.visit
        if inbound.is_request:
            await self.judge(inbound.tool, inbound.id, message.guest, visit, message.path)
            await self._serve(message)
        elif inbound.modern:
            await self._pass(self._json, message, message.send)
        else:
            await self.take(inbound, visit)
            await respond(message.send, 202, [], b"")

    def check_size(self, headers: Headers) -> None:
        try:
            check_declared(headers.raw, self._max_body)
        except WardmeshError as error:
            raise Refusal(error.status, error.problem.detail) from None

    async def read(self, headers: Headers, receive: Receive) -> bytes:
        if headers.get(b"content-type").split(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "The content type must be application/json")
        try:
            return await read_body(receive, self._max_body)
        except WardmeshError as error:
            raise Refusal(error.status, error.problem.detail) from None

    def visit(
        self,
        scope: Scope,
        inbound: Inbound,
        headers: Headers,
        session: McpSession | None,
        guest: Guest,
        profile: str,
    ) -> Visit:
        credential = guest.credential
        if session is not None:
            client_info, capabilities, source = session.client_info, session.capabilities, "session"
        else:
            client_info, capabilities = inbound.client_info, inbound.capabilities
            source = "meta" if inbound.modern else "initialize"
        user_agent = headers.get(b"user-agent")[:256]
        caller = Caller(
            bearer=guest.bearer,
            cookie=guest.cookie,
            agent=self._agents.claimed(client_info, capabilities, source, user_agent),
            ip=self._address.address(scope),
            user_agent=user_agent,
            emergency=headers.get(b"x-break-glass"),
            anonymous_listener=self._gate is None,
        )
        return Visit(
            caller=caller,
            principal=credential.principal,
            expires=credential.expires,
            budget=guest.budget,
            session=session.digest if session else "",
            profile=profile,
            request=inbound.id,
            version=inbound.version or (session.version if session else negotiated_version(inbound)),
            client_info=client_info,
            capabilities=capabilities,
            narrowing=narrowing(headers.get(b"x-mcp-readonly"), headers.get(b"x-mcp-tools")),
        )

    def _session(self, inbound: Inbound, headers: Headers, credential: Credential) -> McpSession | None:
        value = headers.get(b"mcp-session-id")
        if not value or inbound.method == "initialize":
            return None
        try:
            return self._sessions.open(value, credential.principal)
        except SessionUnknown:
            raise Refusal(404, "Session not found", request=inbound.id) from None

    async def judge(self, name: str, request: int | str | None, guest: Guest, visit: Visit, path: str) -> None:
        """Step-up before dispatch (OA-6), then the rate limit by principal and tool. `name`: the called tool or "".

        Who has no token has no scopes to step up to: the stations judge what a session may.
        """
        tool = self._tools.tool(name)
        gate = self._gate if guest.bearer else None
        if tool is not None and gate is not None and not guest.credential.scopes.issuperset(tool.scopes):
            raise gate.step_up(path, tool.scopes, request)
        await self.limit(request, visit, tool.name if tool else "")

    async def limit(self, request: int | str | None, visit: Visit, tool: str) -> None:
        if self._limiter is None:
            return
        wait = await self._limiter.admit(visit.payer, tool)
        if wait:
            retry = ((b"retry-after", str(wait).encode()),)
            event = "security.rate_limit"
            raise Refusal(429, "Too many requests", request=request, headers=retry, event=event)

    async def _serve(self, message: Message) -> None:
        inbound, visit, send = message.inbound, message.visit, message.send
        json, stream = message.headers.accepts()
        listening = inbound.method == "subscriptions/listen"
        if not json or (listening and not stream):
            raise Refusal(406, "The client must accept application/json and text/event-stream", request=inbound.id)
        if stream and (listening or inbound.wants_stream or not self._quick(inbound)):
            await self._pass(self._stream, message, send)
            return
        if inbound.method == "initialize" and not inbound.modern:
            negotiated, info, declared = negotiated_version(inbound), inbound.client_info, inbound.capabilities
            send = minting(send, lambda: self._sessions.mint(negotiated, info, declared, visit.principal))
        tool = self._quick_calls.takes(inbound, visit.profile) if self._quick_calls is not None else None
        if tool is not None and self._quick_calls is not None:

            async def otherwise(scope: Scope, receive: Receive, send: Send) -> None:
                inner = inner_scope(scope, message.headers, visit)
                await self._json(inner, replaying(message.body, receive), send)

            quick = self._quick_calls.answering(tool, inbound, visit, otherwise)
            await until_hung_up(quick, message.scope, message.receive, send)
            return
        await self._pass(self._json, message, send)

    def _quick(self, inbound: Inbound) -> bool:
        """Answered as plain JSON (mcp.md §2.1). Modern lists are JSON on either way; legacy ones keep their stream."""
        if inbound.method == "tools/call":
            tool = self._tools.tool(inbound.tool)
            return tool is None or tool.quick
        return inbound.modern or inbound.method in ("initialize", "ping")

    async def _pass(self, app: App, message: Message, send: Send) -> None:
        inner = inner_scope(message.scope, message.headers, message.visit)
        replayed = replaying(message.body, message.receive)
        if app is self._json:
            await until_hung_up(app, inner, replayed, send)
        else:
            await app(inner, replayed, send)

    async def take(self, inbound: Inbound, visit: Visit) -> None:
        """Legacy notifications and replies: 202 at once, and on to whoever waits for them.

        What goes out to other replicas counts against the rate limit, the rest has no effect at all.
        """
        if inbound.is_reply:
            await self.limit(inbound.id, visit, "")
            await self._exchanges.forward_reply(inbound.message, visit)
        elif inbound.method == "notifications/cancelled":
            await self.limit(inbound.id, visit, "")
            await self._exchanges.forward_cancel(inbound.params.get("requestId"), visit)
