"""The hottest MCP message, a modern `tools/call` answered as JSON, past the SDK's general machinery (mcp.md §2.1)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

import msgspec
from mcp_types import INTERNAL_ERROR, SERVER_INFO_META_KEY, methods
from pydantic import ValidationError

from wardmesh_gateway.asgi import App, Receive, Scope, Send, respond
from wardmesh_gateway.edge_answers import JSON, Refusal
from wardmesh_gateway.edge_request import Inbound
from wardmesh_gateway.healthlake_jobs import STARTS
from wardmesh_gateway.mcp_door import McpTool, ToolResult
from wardmesh_gateway.mcp_sign_in import START, WAIT
from wardmesh_gateway.mcp_visit import Visit

log = logging.getLogger("wardmesh.gateway")

_MESSAGE = frozenset({"jsonrpc", "id", "method", "params"})
_PARAMS = frozenset({"name", "arguments", "_meta"})
_MAX_META = 4096
# These may be answered by a request state, which the SDK seals, or by a task.
_HELD_BACK = frozenset({"", START, WAIT, *STARTS})


class Tools(Protocol):
    """ToolHandlers: the same look-up, check and door as through the SDK."""

    def offered(self, name: str, profile: str) -> McpTool | None: ...

    def schema(self, name: str) -> Mapping[str, Any] | None: ...

    async def answer(self, tool: McpTool, arguments: dict[str, Any], visit: Visit) -> ToolResult: ...


class QuickCalls:
    """Takes a call about which nothing is special. Everything else, every refusal included, stays the SDK's."""

    def __init__(self, tools: Tools, server_info: Mapping[str, Any]) -> None:
        self._tools = tools
        meta = msgspec.json.encode({SERVER_INFO_META_KEY: server_info})
        self._end = b',"resultType":"complete","_meta":' + meta[:-1]

    def takes(self, inbound: Inbound, profile: str) -> McpTool | None:
        """The tool, when this message is one that the SDK would only pass through to its handler."""
        if not inbound.modern or inbound.wants_stream or inbound.tool in _HELD_BACK:
            return None
        if not (inbound.message.keys() <= _MESSAGE and inbound.params.keys() <= _PARAMS):
            return None  # request state, input responses, things of tomorrow
        if not isinstance(inbound.params.get("arguments", {}), dict):
            return None
        if self._tools.schema(inbound.tool) is not None:
            return None  # parameters that are mirrored in headers
        meta = msgspec.json.encode(inbound.meta)
        if len(meta) > _MAX_META or not _sound(meta, inbound.version):
            return None
        return self._tools.offered(inbound.tool, profile)

    def answering(self, tool: McpTool, inbound: Inbound, visit: Visit, otherwise: App) -> App:
        """The answer to this one message, in the form of an ASGI application.

        A call that needs a sign-in first is led there by `otherwise`, from the beginning: rounds or a link.
        """

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                result = await self._tools.answer(tool, inbound.params.get("arguments", {}), visit)
            except Exception:
                # The edge of this face: a bug becomes an answer, its place a line in the log.
                log.exception("a tool call failed unexpectedly")
                raise Refusal(500, "Internal error", code=INTERNAL_ERROR, request=inbound.id) from None
            if result.sign_in:
                await otherwise(scope, receive, send)
                return
            asked = [(b"x-request-id", result.call_id.encode())] if result.call_id else []
            await respond(send, 200, [JSON, *asked], self._written(inbound.id, result))

        return app

    def _written(self, request: int | str | None, result: ToolResult) -> bytes:
        """The result once as it is and once as text, from the same bytes: nothing is decoded on the way."""
        exact = msgspec.json.encode(result.structured) if result.is_error else result.text.encode()
        return b"".join(
            (
                b'{"jsonrpc":"2.0","id":',
                msgspec.json.encode(request),
                b',"result":{"content":[{"type":"text","text":',
                msgspec.json.encode(result.text),
                b'}],"structuredContent":' if not result.note else _noted(result.note),
                exact,
                b',"isError":true' if result.is_error else b',"isError":false',
                self._end,
                b"," + msgspec.json.encode(result.meta)[1:] if result.call_id else b"}",
                b"}}",
            )
        )


def _noted(note: str) -> bytes:
    return b'},{"type":"text","text":' + msgspec.json.encode(note) + b'}],"structuredContent":'


@lru_cache(maxsize=2048)
def _sound(meta: bytes, version: str) -> bool:
    """The SDK's own check of the envelope. A client sends the same one with every call: it is judged once."""
    params = {"name": "any", "_meta": msgspec.json.decode(meta)}
    try:
        methods.validate_client_request("tools/call", version, params)
    except (ValidationError, KeyError, ValueError):
        return False
    return True
