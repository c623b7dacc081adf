"""The private SDK surface, all of it: legacy exchanges that can ask the client back through any replica (mcp.md §3.8).

Used of mcp 2.3: `StreamableHTTPSessionManager._handle_stateless_request` (overridden), its `_task_group` and
`_lifespan_state`, `JSONRPCDispatcher._allocate_id` (overridden), the transport's `_read_stream_writer`.
The conformance run guards it; `mcp` is pinned below 2.4.
"""

# pyright: reportPrivateUsage=false
from __future__ import annotations

import logging
import secrets
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import TaskStatus
from mcp.server.connection import Connection
from mcp.server.lowlevel import Server
from mcp.server.runner import serve_connection
from mcp.server.streamable_http import StreamableHTTPServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import SessionMessage
from mcp.shared.transport_context import TransportContext
from mcp_types import JSONRPCMessage, JSONRPCNotification, jsonrpc_message_adapter
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from wardmesh_gateway.mcp_visit import Visit, visit_of
from wardmesh_gateway.mcp_wire import ClientCancel, ClientReply, Wire

log = logging.getLogger("wardmesh.gateway")


class _Dispatcher(JSONRPCDispatcher[TransportContext]):
    """Server requests carry `<replica>.<exchange>.<n>`, so that the reply finds the way home."""

    prefix = ""

    def _allocate_id(self) -> Any:
        return f"{self.prefix}.{super()._allocate_id()}"


class Exchange:
    """One legacy POST being answered by this replica."""

    def __init__(self, visit: Visit, transport: StreamableHTTPServerTransport) -> None:
        self.id = secrets.token_hex(8)
        self.visit = visit
        self.transport = transport

    async def feed(self, message: JSONRPCMessage) -> None:
        """Hand the SDK a message of the client that came in by another way."""
        writer = self.transport._read_stream_writer
        if writer is not None and not self.transport.is_terminated:
            with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):  # it ended in this moment
                await writer.send(SessionMessage(message))


class Exchanges:
    """The live exchanges of this replica; replies and cancels are matched here, by session and principal."""

    def __init__(self, wire: Wire) -> None:
        self._live: dict[str, Exchange] = {}
        self._wire = wire
        wire.on("reply", ClientReply, self._reply)
        wire.on("cancel", ClientCancel, self._cancel)

    @property
    def replica(self) -> str:
        return self._wire.replica

    def enter(self, exchange: Exchange) -> None:
        self._live[exchange.id] = exchange

    def leave(self, exchange: Exchange) -> None:
        self._live.pop(exchange.id, None)

    async def forward_reply(self, message: dict[str, Any], visit: Visit) -> None:
        """Send a client's reply to its owner; ids that we never minted are dropped silently (§3.3)."""
        parts = str(message.get("id")).split(".")
        if len(parts) == 3 and parts[0].startswith("gateway-") and parts[0].isascii():
            reply = ClientReply(exchange=parts[1], session=visit.session, principal=visit.principal, message=message)
            await self._wire.tell_replica(parts[0], "reply", reply)

    async def forward_cancel(self, request: Any, visit: Visit) -> None:
        """Without a session id a request number says nothing about whose request it is: then nothing happens."""
        if visit.session and isinstance(request, int | str) and not isinstance(request, bool):
            cancel = ClientCancel(session=visit.session, principal=visit.principal, request=request)
            await self._wire.cancel(cancel)

    async def _reply(self, reply: ClientReply) -> None:
        exchange = self._live.get(reply.exchange)
        if exchange is None or not _same(exchange.visit, reply):
            return
        try:
            message = jsonrpc_message_adapter.validate_python(reply.message, by_name=False)
        except ValidationError:
            return  # not a JSON-RPC answer: the client's fault, and its call goes on waiting
        await exchange.feed(message)

    async def _cancel(self, cancel: ClientCancel) -> None:
        for exchange in tuple(self._live.values()):
            request = exchange.visit.request
            if type(request) is type(cancel.request) and request == cancel.request and _same(exchange.visit, cancel):
                params = {"requestId": cancel.request}
                await exchange.feed(JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params=params))


def _same(visit: Visit, other: ClientReply | ClientCancel) -> bool:
    return visit.session == other.session and visit.principal == other.principal


class ExchangeManager(StreamableHTTPSessionManager):
    """The SDK's manager without sessions; its legacy exchanges know the client and can ask it back."""

    def __init__(self, server: Server[Any], exchanges: Exchanges, *, json_response: bool, max_body: int) -> None:
        super().__init__(
            server,
            json_response=json_response,
            stateless=True,
            # Host and Origin are the Edge's job (OA-8).
            security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
            max_request_body_size=max_body,
        )
        self._exchanges = exchanges

    async def _handle_stateless_request(
        self, protocol_version_hint: str | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        visit = visit_of(scope)
        transport = StreamableHTTPServerTransport(
            mcp_session_id=None,
            is_json_response_enabled=self.json_response,
            security_settings=self.security_settings,
        )
        exchange = Exchange(visit, transport)
        assert self._task_group is not None
        self._exchanges.enter(exchange)
        try:
            await self._task_group.start(self._serve, exchange)
            await transport.handle_request(scope, receive, send)
        finally:
            self._exchanges.leave(exchange)
            with anyio.CancelScope(shield=True):
                await transport.terminate()

    async def _serve(self, exchange: Exchange, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        visit = exchange.visit
        async with exchange.transport.connect() as (read_stream, write_stream):
            dispatcher = _Dispatcher(read_stream, write_stream, inline_methods=frozenset({"initialize"}))
            dispatcher.prefix = f"{self._exchanges.replica}.{exchange.id}"
            connection = Connection.from_envelope(visit.version, visit.client_info, visit.capabilities)
            task_status.started()
            try:
                await serve_connection(self.app, dispatcher, connection=connection, lifespan_state=self._lifespan_state)
            except Exception:
                log.exception("an MCP exchange ended in an unexpected error")
