"""The older MCP transport on /sse: messages come as POSTs to any replica, all answers leave on one stream (SM-4)."""

from __future__ import annotations

import msgspec

from wardmesh_gateway.agent import Agents
from wardmesh_gateway.asgi import App, Header, Message, Receive, Scope, Send, respond
from wardmesh_gateway.edge import Edge, Guest
from wardmesh_gateway.edge_answers import Refusal
from wardmesh_gateway.edge_request import Headers, Inbound
from wardmesh_gateway.edge_scope import inner_scope, negotiated_version, replaying
from wardmesh_gateway.mcp_sessions import SessionIds, SessionUnknown
from wardmesh_gateway.mcp_visit import Visit
from wardmesh_gateway.sse_direct import DirectCalls
from wardmesh_gateway.sse_streams import SsePost, Stream
from wardmesh_gateway.tools_smedrec import PROFILE

MOST_BYTES = 1024 * 1024  # of one message: it crosses the bus
_SPOKEN: list[Header] = [(b"content-type", b"application/json")]


class OlderTransport:
    """Each message is judged where it arrives and answered where its stream is."""

    def __init__(self, edge: Edge, agents: Agents, sessions: SessionIds, direct: DirectCalls, stream_app: App) -> None:
        self._edge, self._agents, self._sessions = edge, agents, sessions
        self._direct, self._stream_app = direct, stream_app

    async def post(
        self, scope: Scope, send: Send, headers: Headers, guest: Guest, address: str, body: bytes
    ) -> tuple[str, SsePost]:
        """What is to be forwarded, and to which replica; the caller has its 202."""
        minted, _, replica = address.partition("~")
        principal = guest.credential.principal
        try:
            session = self._sessions.open(minted, principal)
        except SessionUnknown:
            raise Refusal(404, "Session not found") from None
        if len(body) > MOST_BYTES:
            raise Refusal(413, f"Request body too large. Maximum size is {MOST_BYTES} bytes.")
        inbound = self._read(body)
        visit = self._edge.visit(scope, inbound, headers, None, guest, PROFILE)
        await self._edge.judge(inbound.tool, inbound.id, guest, visit, f"/mcp/{PROFILE}")
        post = SsePost(
            stream=session.digest, principal=principal, caller=visit.caller, body=body, narrowing=visit.narrowing
        )
        await respond(send, 202, [], b"")
        return replica, post

    async def answer(self, stream: Stream, post: SsePost) -> None:
        """On the replica that holds the stream."""
        try:
            inbound = self._read(post.body)
            visit = self._visit(stream, post, inbound)
            call = self._direct.asked(post.body)
            if call is not None:
                stream.put(b"event: message\ndata: " + await self._direct.answer(call, visit) + b"\n\n")
            elif inbound.is_request:
                await self._exchange(stream, post.body, visit)
            else:
                await self._edge.take(inbound, visit)
        except Refusal:
            return  # it was judged where it arrived; what has changed since then concerns no answer

    def _read(self, body: bytes) -> Inbound:
        """The older transport has no headers of its own; a direct call is a call of its tool."""
        call = self._direct.asked(body)
        return call.inbound if call is not None else Inbound(body, Headers([]))

    def _visit(self, stream: Stream, post: SsePost, inbound: Inbound) -> Visit:
        if inbound.method == "initialize":
            stream.client_info, stream.capabilities = inbound.client_info, inbound.capabilities
            stream.version = negotiated_version(inbound)
        said = self._agents.claimed(stream.client_info, stream.capabilities, "initialize", post.caller.user_agent)
        return Visit(
            caller=msgspec.structs.replace(post.caller, agent=said),
            principal=post.principal,
            session=stream.session,
            profile=PROFILE,
            request=inbound.id,
            version=stream.version or negotiated_version(inbound),
            client_info=stream.client_info,
            capabilities=stream.capabilities,
            narrowing=post.narrowing,
        )

    async def _exchange(self, stream: Stream, body: bytes, visit: Visit) -> None:
        """The SDK's own event stream, piece by piece onto the one that is open."""
        scope: Scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/sse", "query_string": b""}
        scope |= {"scheme": "http", "server": ("localhost", 80), "client": ("127.0.0.1", 0), "headers": _SPOKEN}

        async def put(message: Message) -> None:
            if message["type"] == "http.response.body" and message.get("body"):
                stream.put(message["body"])

        async def until_gone() -> Message:
            await stream.gone.wait()
            return {"type": "http.disconnect"}

        receive: Receive = until_gone
        await self._stream_app(inner_scope(scope, Headers(_SPOKEN), visit), replaying(body, receive), put)
