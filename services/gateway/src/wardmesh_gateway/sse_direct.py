"""On /sse a JSON-RPC request may name a tool as its method: the same call, a failure as a JSON-RPC error (SM-14)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import msgspec
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS
from msgspec import Struct

from wardmesh_gateway.asgi import Receive, Scope, Send, respond
from wardmesh_gateway.edge_answers import JSON, NO_STORE, REFUSED, Refusal, request_id
from wardmesh_gateway.edge_request import Headers, Inbound
from wardmesh_gateway.edge_watch import until_hung_up
from wardmesh_gateway.mcp_door import McpTool, ToolResult
from wardmesh_gateway.mcp_results import tool_result
from wardmesh_gateway.mcp_visit import Visit
from wardmesh_gateway.tools_smedrec import PROFILE

_CODES = {"validation_error": INVALID_PARAMS, "internal_error": INTERNAL_ERROR, "server_error": INTERNAL_ERROR}


class Tools(Protocol):
    """ToolHandlers."""

    def offered(self, name: str, profile: str) -> McpTool | None: ...

    async def answer(self, tool: McpTool, arguments: dict[str, Any], visit: Visit) -> ToolResult: ...


class DirectCall(Struct, frozen=True):
    """`inbound` is the `tools/call` that it stands for; `id` the caller's own, null when it gave none."""

    id: int | str | None
    tool: McpTool
    arguments: dict[str, Any]
    inbound: Inbound


class DirectCalls:
    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def asked(self, body: bytes) -> DirectCall | None:
        """None for everything that is not of this kind. Raises Refusal for parameters that are no object."""
        try:
            message = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None
        fields = cast("Mapping[str, Any]", message) if isinstance(message, Mapping) else {}
        method = fields.get("method")
        tool = self._tools.offered(method, PROFILE) if isinstance(method, str) else None
        if tool is None:
            return None
        number = request_id(fields.get("id"))
        arguments = fields.get("params")
        if not isinstance(arguments, dict | None):
            raise Refusal(400, "The parameters of a tool are an object", code=INVALID_PARAMS, request=number)
        given = cast("dict[str, Any]", arguments or {})
        params = {"name": tool.name, "arguments": given}
        call = {"jsonrpc": "2.0", "id": 0 if number is None else number, "method": "tools/call", "params": params}
        return DirectCall(number, tool, given, Inbound(msgspec.json.encode(call), Headers([])))

    async def respond(self, call: DirectCall, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            del scope, receive
            result = await self._tools.answer(call.tool, call.arguments, visit)
            asked = [(b"x-request-id", result.call_id.encode())] if result.call_id else []
            await respond(send, 200, [JSON, NO_STORE, *asked], _written(call, result))

        await until_hung_up(app, scope, receive, send)

    async def answer(self, call: DirectCall, visit: Visit) -> bytes:
        """The answer alone, for a stream that is open already."""
        return _written(call, await self._tools.answer(call.tool, call.arguments, visit))


def _written(call: DirectCall, result: ToolResult) -> bytes:
    """One JSON-RPC answer; the text of a failure is the tool's own (SM-12)."""
    answer: dict[str, Any] = {"jsonrpc": "2.0", "id": call.id}
    if not result.is_error:
        return msgspec.json.encode({**answer, "result": tool_result(result)})
    said = result.structured
    code = _CODES.get(str(said.get("error")), REFUSED)
    return msgspec.json.encode({**answer, "error": {"code": code, "message": said.get("message"), "data": said}})
