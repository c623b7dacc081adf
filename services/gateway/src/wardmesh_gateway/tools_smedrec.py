"""The 12 tools for single kinds and the 5 for any kind, under the names of the SMART server (SM-5)."""

from __future__ import annotations

from wardmesh_common.vocabulary import Interaction
from wardmesh_gateway.schemas import DIALECT, PARAMS, Schema, described
from wardmesh_gateway.tool_spec import ToolSpec

PROFILE = "smedrec"
KINDS = ("Patient", "Practitioner", "Organization")

_LONGEST = 256
_ID: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": _LONGEST,
    "description": "Logical id of the resource, without its type.",
}
_TYPE: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": _LONGEST,
    "description": "FHIR R4 resource type, for example 'Observation'.",
}
_RESOURCE: Schema = {"type": "object", "description": "The complete FHIR resource as JSON."}
_SEARCH = described(PARAMS, 'FHIR search parameters, for example {"name": "Smith", "birthdate": "ge1990-01-01"}.')
_VERBS = {
    "Create": (Interaction.CREATE, "Store a new {kind}; the platform chooses its id."),
    "Read": (Interaction.READ, "Read one {kind} by its id."),
    "Update": (Interaction.UPDATE, "Replace one {kind} as a whole."),
    "Search": (Interaction.SEARCH, "Search {kind} with FHIR search parameters. Returns a Bundle."),
    "Delete": (Interaction.DELETE, "Delete one {kind} by its id."),
}


def _tool(kind: str, verb: str, required: tuple[str, ...], *, extra: object = False, **properties: Schema) -> ToolSpec:
    interaction, summary = _VERBS[verb]
    said = "resource" if kind == "Resource" else kind
    return ToolSpec(
        name=f"fhir{kind}{verb}",
        title=f"{verb} a {said}",
        summary=summary.format(kind=said),
        interaction=interaction,
        input={
            "$schema": DIALECT,
            "type": "object",
            "properties": properties,
            "required": list(required),
            "additionalProperties": extra,
        },
        family=PROFILE,
        profiles=(PROFILE,),
    )


def _of_kind(kind: str) -> tuple[ToolSpec, ...]:
    return (
        _tool(kind, "Create", ("resource",), resource=_RESOURCE),
        _tool(kind, "Read", ("id",), id=_ID),
        _tool(kind, "Update", ("id", "resource"), id=_ID, resource=_RESOURCE),
        # An open object: the parameters stand there themselves, or together under `params`.
        _tool(kind, "Search", (), extra=PARAMS["additionalProperties"], params=_SEARCH),
    )


SMEDREC_TOOLS: tuple[ToolSpec, ...] = (
    *(tool for kind in KINDS for tool in _of_kind(kind)),
    _tool("Resource", "Create", ("resourceType", "resource"), resourceType=_TYPE, resource=_RESOURCE),
    _tool("Resource", "Read", ("resourceType", "id"), resourceType=_TYPE, id=_ID),
    _tool("Resource", "Update", ("resourceType", "id", "resource"), resourceType=_TYPE, id=_ID, resource=_RESOURCE),
    _tool("Resource", "Search", ("resourceType", "searchParams"), resourceType=_TYPE, searchParams=_SEARCH),
    _tool("Resource", "Delete", ("resourceType", "id"), resourceType=_TYPE, id=_ID),
)
