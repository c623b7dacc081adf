"""The tool that finds a platform or an organisation by name; no caller's data is concerned (B-20)."""

from __future__ import annotations

from wardmesh_gateway.schemas import Schema, tool_input
from wardmesh_gateway.tool_spec import ToolSpec

MAX_CANDIDATES = 50

_TEXT: Schema = {"type": "string"}

CANDIDATES: Schema = {
    "type": "object",
    "properties": {
        "candidates": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "platform_id": _TEXT,
                    "name": _TEXT,
                    "vendor": _TEXT,
                    "city": _TEXT,
                    "state": _TEXT,
                    "fhir_base_url": _TEXT,
                    "verification_status": _TEXT,
                    "verified_on": _TEXT,
                    "source": _TEXT,
                    "listed_on": _TEXT,
                },
                "required": ["platform_id", "name", "verification_status"],
            },
        },
        "total": {"type": "integer"},
    },
    "required": ["candidates", "total"],
}

DIRECTORY_TOOLS: tuple[ToolSpec, ...] = (
    ToolSpec(
        name="find_platform",
        title="Find a platform",
        summary="Find the platform_id of a payer, hospital or clinic by name, alias, payer id, city or state. "
        "Several candidates mean that the name is ambiguous: ask the person which one is theirs. "
        "unverified means that nobody has probed the address yet.",
        interaction=None,
        performer="gateway",
        profiles=(),
        input=tool_input(
            ("query",),
            query={"type": "string", "minLength": 1, "maxLength": 200, "description": "Words of the name or place."},
            state={"type": "string", "pattern": "^[A-Za-z]{2}$", "description": "Two letters, for example IL."},
            limit={
                "type": "integer",
                "minimum": 1,
                "maximum": MAX_CANDIDATES,
                "default": 10,
                "description": "How many.",
            },
        ),
        output=CANDIDATES,
    ),
)
