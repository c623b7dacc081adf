"""The raw ASGI edge of /sse for clients of the SMART server: with a token, a browser's session or nothing (SM-4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

import msgspec

from wardmesh_common.contracts import Caller
from wardmesh_common.errors import WardmeshError
from wardmesh_gateway.asgi import Receive, Request, Scope, Send, respond
from wardmesh_gateway.cookies import SESSION_NAMES, read
from wardmesh_gateway.edge import Edge, Guest, Message
from wardmesh_gateway.edge_answers import JSON, NO_STORE, Refusal
from wardmesh_gateway.edge_auth import BearerGate
from wardmesh_gateway.edge_origin import OriginGuard
from wardmesh_gateway.edge_request import Headers, Inbound
from wardmesh_gateway.mcp_door import Credentials
from wardmesh_gateway.mcp_sessions import McpSession, SessionIds, SessionUnknown
from wardmesh_gateway.mcp_visit import Visit
from wardmesh_gateway.same_site import SameSite
from wardmesh_gateway.sse_direct import DirectCalls
from wardmesh_gateway.sse_ended import EndedSessions
from wardmesh_gateway.sse_older import OlderTransport
from wardmesh_gateway.sse_streams import SseStreams, Stream
from wardmesh_gateway.tools_smedrec import PROFILE

PATHS = frozenset({"/sse", "/sse/"})
_NO_SESSION = "Bad Request: No valid MCP session ID provided or not an init request."
_INVALID = msgspec.json.encode({"message": "Invalid or missing session ID"})
_CHALLENGED = f"/mcp/{PROFILE}"  # its metadata tells where a token can be had
_OLDER_VERSION = "2024-11-05"
MOST_FIELDS = 32

Method = Callable[[Scope, Receive, Send, Headers, Guest], Awaitable[None]]


class SseEdge:
    """Nobody is turned away here: who has not signed in hears it from the tools, with the place to do so (SM-11)."""

    def __init__(
        self,
        *,
        edge: Edge,
        guard: OriginGuard,
        gate: BearerGate,
        callers: Credentials,
        same_site: SameSite,
        sessions: SessionIds,
        ended: EndedSessions,
        streams: SseStreams,
        older: OlderTransport,
        direct: DirectCalls,
    ) -> None:
        self._edge, self._guard, self._gate, self._callers = edge, guard, gate, callers
        self._same_site, self._sessions, self._ended = same_site, sessions, ended
        self._streams, self._older, self._direct = streams, older, direct
        self._methods: dict[str, Method] = {"POST": self._post, "GET": self._get, "DELETE": self._delete}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope["headers"])
        try:
            self._edge.check_size(headers)
            self._guard.check(headers.get(b"host"), headers.get(b"origin"))
            method = self._methods.get(scope["method"])
            if method is None:
                raise Refusal(405, "Method not allowed", headers=((b"allow", ", ".join(self._methods).encode()),))
            await method(scope, receive, send, headers, await self._guest(scope, headers))
        except Refusal as refusal:
            self._edge.note(refusal, scope, headers)
            await refusal.answer(send)

    def close(self) -> None:
        """Streams end in order when the process begins to stop."""
        self._streams.close()

    async def _guest(self, scope: Scope, headers: Headers) -> Guest:
        """A token that does not hold is refused; a cookie counts only for pages of ours (FG-14)."""
        authorization = headers.get(b"authorization")
        if authorization:
            bearer, credential = await self._gate.enter(authorization, _CHALLENGED)
            return Guest(bearer=bearer, credential=credential)
        cookie = read(headers.raw, SESSION_NAMES)
        if cookie:
            try:
                self._same_site.own_page(Request(scope, _nothing, 0))
            except WardmeshError as error:
                raise Refusal(403, error.problem.detail, event="security.csrf_violation") from None
        caller = Caller(cookie=cookie, ip=self._callers.address(scope))
        return Guest(cookie=cookie, budget=self._callers.budget(caller))

    async def _post(self, scope: Scope, receive: Receive, send: Send, headers: Headers, guest: Guest) -> None:
        body = await self._edge.read(headers, receive)
        older = _session_in_query(scope)
        if older:
            await self._streams.forward(*await self._older.post(scope, send, headers, guest, older, body))
            return
        session = self._session(headers, guest)
        call = self._direct.asked(body)
        if call is not None:
            visit = self._edge.visit(scope, call.inbound, headers, session, guest, PROFILE)
            await self._edge.judge(call.tool.name, call.id, guest, visit, _CHALLENGED)
            await self._direct.respond(call, visit, scope, receive, send)
            return
        inbound = Inbound(body, headers)
        begins = inbound.method == "initialize"
        if session is None and not inbound.modern and not begins:
            raise Refusal(400, _NO_SESSION, request=inbound.id)
        known = None if inbound.modern or begins else session
        visit = self._edge.visit(scope, inbound, headers, known, guest, PROFILE)
        message = Message(
            scope=scope,
            receive=receive,
            send=send,
            headers=headers,
            body=body,
            inbound=inbound,
            guest=guest,
            visit=visit,
            path=_CHALLENGED,
        )
        await self._edge.dispatch(message)

    async def _get(self, scope: Scope, receive: Receive, send: Send, headers: Headers, guest: Guest) -> None:
        visit = self._visit(scope, guest)
        await self._edge.limit(None, visit, "")
        principal = visit.principal
        session = self._session(headers, guest)
        if session is not None:
            await self._streams.notifications(Stream(session.digest, principal, visit.payer), receive, send)
        elif not headers.get(b"mcp-session-id") and "text/event-stream" in headers.get(b"accept").lower():
            minted = self._sessions.mint(_OLDER_VERSION, None, None, principal)
            digest = self._sessions.open(minted, principal).digest
            stream = Stream(digest, principal, visit.payer)
            await self._streams.answers(stream, f"/sse?sessionId={minted}", receive, send)
        else:
            await respond(send, 400, [JSON, NO_STORE], _INVALID)

    async def _delete(self, scope: Scope, receive: Receive, send: Send, headers: Headers, guest: Guest) -> None:
        """Ends the MCP session on every replica; the person stays signed in."""
        del receive
        await self._edge.limit(None, self._visit(scope, guest), "")
        session = self._session(headers, guest)
        if session is None:
            await respond(send, 400, [JSON, NO_STORE], _INVALID)
            return
        await self._ended.end(session.digest)
        await respond(send, 204, [NO_STORE], b"")

    def _session(self, headers: Headers, guest: Guest) -> McpSession | None:
        """A session begun before somebody signed in with the same browser goes on afterwards."""
        try:
            return self._sessions.open(headers.get(b"mcp-session-id"), guest.credential.principal)
        except SessionUnknown:
            return None

    def _visit(self, scope: Scope, guest: Guest) -> Visit:
        caller = Caller(ip=self._callers.address(scope))
        return Visit(caller=caller, principal=guest.credential.principal, budget=guest.budget, profile=PROFILE)


def _session_in_query(scope: Scope) -> str:
    """How the older transport names its session: in the address that it was given."""
    try:
        found = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Refusal(400, "The query has too many parameters") from None
    return next((found[name][0] for name in ("sessionId", "session_id") if name in found), "")


async def _nothing() -> dict[str, object]:
    raise AssertionError("only the headers are looked at")
