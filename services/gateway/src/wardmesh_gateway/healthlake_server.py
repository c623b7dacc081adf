"""The tools of AWS's published server: its arguments become those of the 29, its answers have pages (HL-15)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from wardmesh_common.vocabulary import Face
from wardmesh_gateway.answers import Answered
from wardmesh_gateway.caller import Visit
from wardmesh_gateway.healthlake_pages import CURSOR, PAGE, paged
from wardmesh_gateway.healthlake_tools import HealthLakeTools
from wardmesh_gateway.tool_spec import ToolSpec
from wardmesh_gateway.tools_healthlake_server import BASE

Arguments = Mapping[str, Any]
_SEARCH = "search_fhir_resources"


class HealthLakeServerTools:
    """A Family of tools in front of another one: policy and record know the calls under the names of the 29."""

    def __init__(self, tools: HealthLakeTools) -> None:
        self._tools = tools

    async def call(self, tool: ToolSpec, arguments: Arguments, visit: Visit, face: Face, traceparent: str) -> Answered:
        base = BASE[tool.shown_as]
        given = _TRANSLATED.get(base.name, dict)(arguments)
        answered = await self._tools.call(base, given, visit, face, traceparent)
        if base.name == _SEARCH:
            return msgspec.structs.replace(answered, body=paged(answered.body))
        return answered


def _listed(arguments: Arguments) -> dict[str, Any]:
    return {"filter_dict": {"DatastoreStatus": arguments["filter"]}} if "filter" in arguments else {}


def _searched(arguments: Arguments) -> dict[str, Any]:
    """With a token the search is the one that the token belongs to."""
    target = {name: arguments[name] for name in ("datastore_id", "resource_type")}
    query: dict[str, Any] = {"_count": arguments.get("count", PAGE)}
    if "next_token" in arguments:
        return {**target, "query_parameters": {**query, CURSOR: arguments["next_token"]}}
    query |= {name: _either(value) for name, value in arguments.get("search_params", {}).items()}
    for name, value in arguments.get("chained_params", {}).items():
        query[name] = [query[name], value] if name in query else value
    query |= {"_include": arguments["include_params"]} if "include_params" in arguments else {}
    query |= {"_revinclude": arguments["revinclude_params"]} if "revinclude_params" in arguments else {}
    return {**target, "query_parameters": query}


def _either(value: Any) -> Any:
    return ",".join(str(one) for one in value) if isinstance(value, list) else value


def _typed(arguments: Arguments) -> dict[str, Any]:
    """A resource need not repeat the type that stands beside it."""
    typed = {"resourceType": arguments["resource_type"], **arguments["resource_data"]}
    return {**arguments, "resource_data": typed}


def _job(arguments: Arguments) -> dict[str, Any]:
    """AWS's members for its own words of them."""
    return {name: _members(value) if name.endswith("_config") else value for name, value in arguments.items()}


def _members(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {_MEMBERS[name]: _members(member) for name, member in value.items()}


_MEMBERS = {"s3_uri": "S3Uri", "s3_configuration": "S3Configuration", "kms_key_id": "KmsKeyId"}
_TRANSLATED: dict[str, Callable[[Arguments], dict[str, Any]]] = {
    "list_datastores": _listed,
    _SEARCH: _searched,
    "create_fhir_resource": _typed,
    "update_fhir_resource": _typed,
    "start_fhir_import_job": _job,
    "start_fhir_export_job": _job,
}
