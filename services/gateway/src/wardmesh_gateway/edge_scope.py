"""One request to the MCP face as the SDK sees it: the visit in its scope, the body once more, the version agreed on."""

from __future__ import annotations

from mcp_types import DEFAULT_NEGOTIATED_VERSION
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION

from wardmesh_gateway.asgi import Message, Receive, Scope
from wardmesh_gateway.edge_request import Headers, Inbound
from wardmesh_gateway.mcp_visit import Visit, put_visit


def negotiated_version(inbound: Inbound) -> str:
    """The legacy version that `initialize` agrees on, or the one to assume when nothing says (GW-1)."""
    if inbound.method != "initialize":
        return DEFAULT_NEGOTIATED_VERSION
    asked = inbound.params.get("protocolVersion")
    return asked if isinstance(asked, str) and asked in HANDSHAKE_PROTOCOL_VERSIONS else LATEST_HANDSHAKE_VERSION


def inner_scope(scope: Scope, headers: Headers, visit: Visit) -> Scope:
    """The request as the SDK sees it."""
    inner: Scope = {**scope, "headers": headers.for_sdk()}
    put_visit(inner, visit)
    return inner


def replaying(body: bytes, receive: Receive) -> Receive:
    """The body once; afterwards the real channel, or disconnects would be lost."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay
