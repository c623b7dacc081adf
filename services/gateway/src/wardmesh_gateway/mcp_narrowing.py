"""What a client takes away from itself: `X-MCP-Readonly` and `X-MCP-Tools` narrow, they never widen (HL-15)."""

from __future__ import annotations

from msgspec import Struct

from wardmesh_gateway.healthlake_words import READ_ONLY
from wardmesh_gateway.mcp_door import McpTool, ToolResult
from wardmesh_gateway.tool_family import typed_error

_ON = frozenset({"true", "1", "yes", "on"})
NOT_ALLOWED = "Operation not permitted: this client allows itself other tools only"


class Narrowing(Struct, frozen=True):
    """Holds for one request; `tools` None = all of them."""

    read_only: bool = False
    tools: frozenset[str] | None = None

    def refusal(self, tool: McpTool) -> str:
        """Why this tool is not for this client; "" when it is."""
        if self.tools is not None and (tool.shown_as or tool.name) not in self.tools:
            return NOT_ALLOWED
        return READ_ONLY if self.read_only and not tool.read_only else ""


def narrowing(read_only: str, tools: str) -> Narrowing:
    """From the two headers. An empty list of tools would be a header nobody sent, so it allows every tool."""
    names = frozenset(name.strip() for name in tools.split(",") if name.strip())
    return Narrowing(read_only=read_only.strip().lower() in _ON, tools=names or None)


def complained(tool: McpTool, code: str, message: str) -> ToolResult:
    """A call that ends at this face, in the form in which this tool tells of failures."""
    kind = "auth_error" if code == "forbidden" else "validation_error"
    structured = typed_error(kind, message) if tool.typed_errors else {"error": code, "message": message}
    return ToolResult(structured=structured, is_error=True)
