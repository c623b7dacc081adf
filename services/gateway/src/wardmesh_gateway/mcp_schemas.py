"""Validates tool arguments against the tool's JSON Schema, compiled once; it never quotes the input (GW-5)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import jsonschema_rs
from mcp.shared.inbound import x_mcp_header_map

from wardmesh_gateway.mcp_door import McpTool

_SHOWN = 3
_WORDS = {
    "type": "has the wrong type",
    "enum": "is not one of the allowed values",
    "const": "is not the allowed value",
    "pattern": "has the wrong form",
    "format": "has the wrong form",
    "minLength": "is too short",
    "maxLength": "is too long",
    "minimum": "is too small",
    "maximum": "is too large",
    "minItems": "has too few items",
    "maxItems": "has too many items",
    "additionalProperties": "has a parameter that is not known",
}


class ArgumentCheck:
    """The compiled schema of one tool."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._validator = jsonschema_rs.validator_for(schema)

    def complaint(self, arguments: Any) -> str:
        """Empty when the arguments hold; otherwise a text made of the schema's own names only."""
        if self._validator.is_valid(arguments):
            return ""
        seen = dict.fromkeys(_text(error) for error in self._validator.iter_errors(arguments))
        return "; ".join(list(seen)[:_SHOWN])


def _text(error: jsonschema_rs.ValidationError) -> str:
    path = error.schema_path
    keyword = str(path[-1]) if path else ""
    if keyword == "required":
        name = getattr(error.kind, "property", "")
        return f"{_where([*path, 'properties', str(name)])} is required"
    return f"{_where(path)} {_WORDS.get(keyword, 'is not valid')}"


def _where(path: Iterable[Any]) -> str:
    """The names after `properties` in the schema path: the instance path could hold names out of the input."""
    steps = [str(step) for step in path]
    names = [name for before, name in pairwise(steps) if before == "properties"]
    return ".".join(names) or "The arguments object"


class ToolShelf:
    """The catalogue snapshot: tools by name, sorted, with their compiled schemas."""

    def __init__(self, tools: tuple[McpTool, ...]) -> None:
        self.source = tools
        self.sorted = tuple(sorted(tools, key=lambda tool: tool.name))
        self._by_name = {tool.name: tool for tool in tools if not tool.shown_as}
        self._own = {(tool.profiles[0], tool.shown_as): tool for tool in tools if tool.shown_as}
        self._mirrored = {tool.name: tool.input_schema for tool in tools if x_mcp_header_map(tool.input_schema)}
        self._checks = {tool.name: ArgumentCheck(tool.input_schema) for tool in tools}

    def tool(self, name: str, profile: str = "") -> McpTool | None:
        """A profile's own form of a tool goes before the one that the others know under this name."""
        return self._own.get((profile, name)) or self._by_name.get(name)

    def schema(self, name: str) -> dict[str, Any] | None:
        tool = self._by_name.get(name)
        return tool.input_schema if tool else None

    def mirrored(self, name: str) -> dict[str, Any] | None:
        """The schema when some parameter is mirrored in a header, else None: then there is nothing to compare."""
        return self._mirrored.get(name)

    def check(self, name: str) -> ArgumentCheck:
        return self._checks[name]
