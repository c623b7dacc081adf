"""The 11 tools of AWS's published server with its own parameters, in a profile of its name (HL-15)."""

from __future__ import annotations

import msgspec

from wardmesh_gateway import healthlake_schemas as arg
from wardmesh_gateway import tools_healthlake_more as more
from wardmesh_gateway.schemas import PARAMS, Schema, described
from wardmesh_gateway.tool_spec import ToolSpec
from wardmesh_gateway.tools_healthlake import DATASTORE_TOOLS
from wardmesh_gateway.tools_healthlake_data import DATA_TOOLS

PROFILE = "healthlake-mcp-server"
BASE: dict[str, ToolSpec] = {tool.name: tool for tool in (*DATASTORE_TOOLS, *DATA_TOOLS, *more.MORE_TOOLS)}

_STORE = {"datastore_id": arg.DATASTORE_ID}
_TYPED = {**_STORE, "resource_type": arg.TYPE}
_TARGET = {**_TYPED, "resource_id": arg.ID}
_DATA = {"resource_data": arg.RESOURCE}
_INPUT = arg.members("Where the NDJSON files lie: {s3_uri}.", ("s3_uri",), s3_uri=arg.S3)
_OUTPUT = arg.members(
    "Where results go: {s3_configuration: {s3_uri, kms_key_id}}.",
    ("s3_configuration",),
    s3_configuration=arg.members(
        "Folder and key.", ("s3_uri",), s3_uri=arg.S3, kms_key_id=arg.text("Key that encrypts the files.")
    ),
)
_JOB = {**_STORE, "data_access_role_arn": arg.ROLE, "job_name": arg.JOB_NAME}
_SEARCH: dict[str, Schema] = {
    **_TYPED,
    "search_params": described(PARAMS, "FHIR search parameters by name, modifiers included; a list means 'or'."),
    "chained_params": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "maxProperties": 64,
        "description": "Chained parameters, for example {'subject.name': 'Smith', 'subject:Patient.gender': 'male'}.",
    },
    "include_params": arg.strings("_include values, for example ['Patient:general-practitioner']."),
    "revinclude_params": arg.strings("_revinclude values, for example ['Observation:subject']."),
    "count": more.COUNT,
    "next_token": more.NEXT,
}


def _own(name: str, properties: dict[str, Schema], *, optional: tuple[str, ...] = ()) -> ToolSpec:
    """The tool of this name that the datastores have anyway, with other arguments and other errors."""
    return msgspec.structs.replace(
        BASE[name],
        name=f"{PROFILE}.{name}",
        shown_as=name,
        input=arg.whole(tuple(key for key in properties if key not in optional), **properties),
        family=PROFILE,
        profiles=(PROFILE,),
        typed_errors=True,
    )


SERVER_TOOLS: tuple[ToolSpec, ...] = (
    _own(
        "list_datastores",
        {"filter": arg.text("Only datastores in this state.", enum=["CREATING", "ACTIVE", "DELETING", "DELETED"])},
        optional=("filter",),
    ),
    _own(more.DETAILS, _STORE),
    _own("create_fhir_resource", {**_TYPED, **_DATA}),
    _own("read_fhir_resource", _TARGET),
    _own("update_fhir_resource", {**_TARGET, **_DATA}),
    _own("delete_fhir_resource", _TARGET),
    _own("search_fhir_resources", _SEARCH, optional=tuple(name for name in _SEARCH if name not in _TYPED)),
    _own(more.EVERYTHING, more.EVERYTHING_INPUT, optional=("start", "end", "count", "next_token")),
    _own(
        "start_fhir_import_job",
        {**_JOB, "input_data_config": _INPUT, "job_output_data_config": _OUTPUT},
        optional=("job_name",),
    ),
    _own("start_fhir_export_job", {**_JOB, "output_data_config": _OUTPUT}, optional=("job_name",)),
    _own(more.JOBS, more.JOBS_INPUT, optional=("job_status", "job_type")),
)
