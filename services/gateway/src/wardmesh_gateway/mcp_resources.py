"""MCP resources of FG-25: the platforms, and one platform by id."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, PaginatedRequestParams, ReadResourceRequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from wardmesh_common.questions import PlatformFacts
from wardmesh_gateway.mcp_door import Door, PlatformCatalogue
from wardmesh_gateway.mcp_visit import visitor

PLATFORMS = "fhir://platforms"
PLATFORM = "fhir://platform/"
LEGACY_NOT_FOUND = -32002
_JSON = "application/json"
_id = re.compile(r"[a-z0-9][a-z0-9-]{0,63}").fullmatch
Context = ServerRequestContext[Any, Any]


class ResourceHandlers:
    """resources/list, resources/templates/list, resources/read."""

    def __init__(self, door: Door, catalogue: PlatformCatalogue) -> None:
        self._door, self._catalogue = door, catalogue

    async def list(self, ctx: Context, params: PaginatedRequestParams) -> dict[str, Any]:
        resource = {
            "uri": PLATFORMS,
            "name": "platforms",
            "title": "FHIR platforms",
            "description": "Every payer, EHR and store behind this gateway",
            "mimeType": _JSON,
        }
        return {"resources": [resource]}

    async def templates(self, ctx: Context, params: PaginatedRequestParams) -> dict[str, Any]:
        template = {
            "uriTemplate": f"{PLATFORM}{{platform_id}}",
            "name": "platform",
            "title": "One FHIR platform",
            "description": "Address, sign-in and capabilities of one platform",
            "mimeType": _JSON,
        }
        return {"resourceTemplates": [template]}

    async def read(self, ctx: Context, params: ReadResourceRequestParams) -> dict[str, Any]:
        uri = str(params.uri)
        if uri == PLATFORMS:
            return _contents(uri, await self._platforms(ctx))
        platform_id = uri.removeprefix(PLATFORM)
        if platform_id == uri or not _id(platform_id):
            raise resource_not_found(ctx, "Resource not found", uri)
        facts = self._catalogue.platform(platform_id)
        if facts is None:
            raise resource_not_found(ctx, f"Platform '{platform_id}' not found", uri)
        return _contents(uri, _described(facts))

    async def _platforms(self, ctx: Context) -> dict[str, Any]:
        """The tool's own answer, through the one door: identified, decided and recorded like any other call."""
        result = await self._door.call_tool("list_platforms", {}, visitor(ctx).caller)
        if result.is_error:
            raise MCPError(INTERNAL_ERROR, str(result.structured.get("message", "Resource cannot be read now")))
        return result.structured

    def visible(self, uri: str) -> bool:
        """May a caller subscribe to it? Only what can be read (mcp.md §3.6)."""
        platform_id = uri.removeprefix(PLATFORM)
        known = platform_id != uri and bool(_id(platform_id)) and self._catalogue.platform(platform_id) is not None
        return uri == PLATFORMS or known


def _described(facts: PlatformFacts) -> dict[str, Any]:
    return {
        "id": facts.id,
        "name": facts.name,
        "fhir_base_url": facts.fhir_base_url or None,
        "has_oauth": facts.has_oauth,
        "verification_status": facts.verification_status,
        "capabilities": {name: name in facts.capabilities for name in ("patient_access", "crd", "dtr")},
    }


def _contents(uri: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"contents": [{"uri": uri, "mimeType": _JSON, "text": msgspec.json.encode(value).decode()}]}


def resource_not_found(ctx: Context, message: str, uri: str) -> MCPError:
    """-32602 with the URI on the modern wire, -32002 before (mcp.md §1.1)."""
    modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
    return MCPError(INVALID_PARAMS if modern else LEGACY_NOT_FOUND, message, {"uri": uri})
