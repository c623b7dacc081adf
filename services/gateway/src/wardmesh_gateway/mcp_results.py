"""A tool's answer as MCP writes it."""

from __future__ import annotations

from typing import Any

from wardmesh_gateway.mcp_door import ToolResult


def tool_result(result: ToolResult) -> dict[str, Any]:
    content = [{"type": "text", "text": text} for text in (result.text, result.note) if text]
    shown = {"content": content, "structuredContent": result.structured, "isError": result.is_error}
    return shown | ({"_meta": meta} if (meta := result.meta) else {})
