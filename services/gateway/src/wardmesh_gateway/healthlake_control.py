"""From the arguments of a tool for datastores, jobs and tags to a call: AWS's own members (HL-1, HL-10, HL-11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from wardmesh_common.vocabulary import Interaction
from wardmesh_gateway.calls import Wanted
from wardmesh_gateway.tool_spec import ToolSpec

Arguments = Mapping[str, Any]
JSON = "application/json"

# Argument of a tool -> member of AWS's request.
MEMBERS = {
    "datastore_id": "DatastoreId",
    "datastore_type_version": "DatastoreTypeVersion",
    "datastore_name": "DatastoreName",
    "sse_configuration": "SseConfiguration",
    "preload_data_config": "PreloadDataConfig",
    "identity_provider_configuration": "IdentityProviderConfiguration",
    "client_token": "ClientToken",
    "tags": "Tags",
    "tag_keys": "TagKeys",
    "resource_arn": "ResourceARN",
    "filter_dict": "Filter",
    "next_token": "NextToken",
    "max_results": "MaxResults",
    "input_data_config": "InputDataConfig",
    "job_output_data_config": "JobOutputDataConfig",
    "output_data_config": "OutputDataConfig",
    "data_access_role_arn": "DataAccessRoleArn",
    "job_id": "JobId",
    "job_name": "JobName",
    "job_status": "JobStatus",
    "submitted_before": "SubmittedBefore",
    "submitted_after": "SubmittedAfter",
}


def control_call(tool: ToolSpec, arguments: Arguments, region: str) -> Wanted:
    """`region` is "" for the deployment's own."""
    request = {MEMBERS[name]: value for name, value in arguments.items() if name in MEMBERS}
    body = {"region": region, "request": request} if region else {"request": request}
    return Wanted(
        tool=tool.name,
        interaction=Interaction.OPERATION,
        type="Datastore",
        id=target(arguments),
        operation=tool.operation,
        body=msgspec.json.encode(body),
        media_type=JSON,
        scope=tool.scope,
    )


def target(arguments: Arguments) -> str:
    """Which datastore it is about: its id, or the end of its ARN; "" for none."""
    return str(arguments.get("datastore_id") or str(arguments.get("resource_arn", "")).rpartition("/")[2])
