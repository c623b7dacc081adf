"""What the edge found out about one request to /mcp; the handlers read it from the ASGI scope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from msgspec import Struct

from wardmesh_common.contracts import Caller
from wardmesh_gateway.mcp_narrowing import Narrowing
from wardmesh_gateway.mcp_tasks import TASKS_EXTENSION

_KEY = "wardmesh.visit"
_TASKS = f"extensions.{TASKS_EXTENSION}"


class Visit(Struct, frozen=True, kw_only=True):
    """Who asks, with what, in which era. The principal and the session are digests."""

    caller: Caller
    principal: str = ""  # "" only on the anonymous listener
    expires: float = 0.0  # of the token; 0 = never
    budget: str = ""  # whose rate limit counts, when it is not the principal's
    session: str = ""
    profile: str = ""  # "" = /mcp, every tool
    request: int | str | None = None  # JSON-RPC id of a legacy request
    version: str = ""
    client_info: Any = None
    capabilities: Any = None
    narrowing: Narrowing = Narrowing()

    @property
    def payer(self) -> str:
        """Whose rate limit counts, and whose share of what is scarce."""
        return self.budget or self.principal or self.caller.ip


def knows_tasks(visit: Visit) -> bool:
    """The extension belongs to the modern era: only there a result may say that it is a task."""
    return visit.version in MODERN_PROTOCOL_VERSIONS and _TASKS in visit.caller.agent.capabilities


def visit_of(scope: Mapping[str, Any]) -> Visit:
    visit = scope.get(_KEY)
    if not isinstance(visit, Visit):
        raise RuntimeError("a request reached the MCP server without passing the edge")
    return visit


def put_visit(scope: dict[str, Any], visit: Visit) -> None:
    scope[_KEY] = visit


def visitor(ctx: ServerRequestContext[Any, Any]) -> Visit:
    """The visit behind a handler's context."""
    return visit_of(ctx.request.scope if ctx.request is not None else {})
