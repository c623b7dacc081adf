"""From the arguments of a SMART server tool to what the door is asked for (SM-5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from wardmesh_common.errors import BadRequest
from wardmesh_common.vocabulary import Interaction
from wardmesh_gateway.bodies import FHIR_JSON, encode_resource, with_id
from wardmesh_gateway.calls import Wanted
from wardmesh_gateway.rules import check_id, check_type
from wardmesh_gateway.tool_calls import REPRESENTATION, pairs_of, query_of
from wardmesh_gateway.tool_spec import ToolSpec
from wardmesh_gateway.tools_smedrec import KINDS

Arguments = Mapping[str, Any]


def wanted_of(tool: ToolSpec, arguments: Arguments) -> Wanted:
    """Raises BadRequest for arguments that fit the schema and make no sense all the same."""
    assert tool.interaction is not None, "every tool of this family makes a call"
    kind = next((kind for kind in KINDS if tool.name.startswith(f"fhir{kind}")), "")
    start = Wanted(tool=tool.name, interaction=tool.interaction, type=kind or check_type(arguments["resourceType"]))
    if tool.interaction is Interaction.SEARCH:
        return msgspec.structs.replace(start, query=_query(arguments, own=bool(kind)))
    if tool.interaction is not Interaction.CREATE:
        start = msgspec.structs.replace(start, id=check_id(arguments["id"], "id"))
    if tool.interaction in (Interaction.READ, Interaction.DELETE):
        return start
    resource = arguments["resource"]
    body = encode_resource(with_id(resource, start.id) if start.id else resource, start.type)
    return msgspec.structs.replace(start, body=body, media_type=FHIR_JSON, headers=REPRESENTATION)


def _query(arguments: Arguments, *, own: bool) -> str:
    """`own`: the tool of one kind, whose parameters may stand among the arguments themselves."""
    if not own:
        return query_of(pairs_of(arguments["searchParams"]))
    direct = {name: value for name, value in arguments.items() if name != "params"}
    within = arguments.get("params", {})
    if direct.keys() & within.keys():
        raise BadRequest("A search parameter is given twice, beside params and within.")
    return query_of(pairs_of({**direct, **within}))
