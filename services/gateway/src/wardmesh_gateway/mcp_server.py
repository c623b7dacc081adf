"""Assembles the SDK's low-level Server around our handlers; used by the product and by the conformance pack."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from wardmesh_gateway.mcp_visit import visitor

log = logging.getLogger("wardmesh.gateway")

# The same on every replica: what one seals all others open (mcp.md §3.5).
AUDIENCE = "wardmesh-gateway"
_CACHEABLE: tuple[CacheableMethod, ...] = (
    "server/discover",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
)


# Method -> its parameters and its handler. Handlers give plain dicts: the SDK checks them against the wire schema.
Handler = Callable[[ServerRequestContext[Any, Any], Any], Awaitable[HandlerResult]]
Handlers = Mapping[str, tuple[type[Any], Handler]]


def assemble(
    name: str,
    *,
    title: str,
    version: str,
    instructions: str,
    schema: Callable[[str], Mapping[str, Any] | None],
    handlers: Handlers,
    keys: Sequence[bytes],
    list_ttl_ms: int = 60_000,
) -> Server[Any]:
    """Our middleware takes the place of the SDK's tracing: our own span exists (mcp.md §2.1)."""
    server: Server[Any] = Server(
        name,
        title=title,
        version=version,
        instructions=instructions,
        # Every list is filtered by principal, so none is public (GW-4).
        cache_hints={method: CacheHint(ttl_ms=list_ttl_ms, scope="private") for method in _CACHEABLE},
        get_tool_input_schema=schema,
    )
    for method, (params, handler) in handlers.items():
        server.add_request_handler(method, params, _completing(handler))
    security = RequestStateSecurity(keys=list(keys), bind_principal=_principal)
    server.middleware.clear()
    server.middleware.append(_contain)
    server.middleware.append(RequestStateBoundary(security, default_audience=AUDIENCE))
    return server


def _completing(handler: Handler) -> Handler:
    """The modern wire wants `resultType` on every result, older ones know no such thing."""

    async def complete(ctx: ServerRequestContext[Any, Any], params: Any) -> HandlerResult:
        result = await handler(ctx, params)
        if isinstance(result, dict) and ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return {"resultType": "complete", **result}
        return result

    return complete


def _principal(ctx: ServerRequestContext[Any, Any]) -> str | None:
    return visitor(ctx).principal or None


async def _contain(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """The edge where a bug becomes `Internal error`: on the legacy wire the SDK would show the exception's text."""
    try:
        return await call_next(ctx)
    except (MCPError, ValidationError):
        raise
    except Exception:
        log.exception("an MCP handler failed unexpectedly", extra={"method": ctx.method})
        raise MCPError(INTERNAL_ERROR, "Internal error") from None
