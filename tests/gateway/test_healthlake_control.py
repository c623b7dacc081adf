"""The datastore tools that manage: the members of AWS, regions, read-only mode, error texts (HL-1, HL-10 to HL-13)."""

# ruff: noqa: E501 - tables of cases read better in one line

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.healthlake_stage import ARN, OUTPUT, PERSON, PLATFORM, ROLE, STORE, TOOLS_OF_HL, tool
from gateway.rest_stage import PLATFORMS, Stage, ok, outcome_body, refused
from wardmesh_gateway.healthlake_calls import BUILD
from wardmesh_gateway.healthlake_tools import changes

pytestmark = pytest.mark.anyio
SAMPLE: dict[str, Any] = {
    "datastore_id": STORE, "resource_type": "Patient", "resource_id": "p", "resource_data": PERSON, "job_id": "j",
    "compartment_type": "Patient", "compartment_id": "p", "resource_arn": ARN, "family_name": "D", "given_names": ["A"],
    "gender": "male", "birth_date": "1970-01-01", "patient_reference": "Patient/p", "code_system": "s",
    "code_value": "v", "code_display": "d",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments", "operation", "target", "request_"),
    [
        ("create_datastore", {"datastore_type_version": "R4", "datastore_name": "a", "client_token": "t", "tags": [{"Key": "k", "Value": "v"}], "preload_data_config": {"PreloadDataType": "SYNTHEA"}, "sse_configuration": {"a": 1}, "identity_provider_configuration": {"b": 2}}, "$create-datastore", "", {"DatastoreTypeVersion": "R4", "DatastoreName": "a", "ClientToken": "t", "Tags": [{"Key": "k", "Value": "v"}], "PreloadDataConfig": {"PreloadDataType": "SYNTHEA"}, "SseConfiguration": {"a": 1}, "IdentityProviderConfiguration": {"b": 2}}),
        ("delete_datastore", {"datastore_id": STORE}, "$delete-datastore", STORE, {"DatastoreId": STORE}),
        ("describe_datastore", {"datastore_id": STORE}, "$describe-datastore", STORE, {"DatastoreId": STORE}),
        ("list_datastores", {"filter_dict": {"DatastoreName": "a"}, "next_token": "n", "max_results": 5}, "$list-datastores", "", {"Filter": {"DatastoreName": "a"}, "NextToken": "n", "MaxResults": 5}),
        ("start_fhir_import_job", {"input_data_config": {"S3Uri": "s3://b/in"}, "job_output_data_config": OUTPUT, "datastore_id": STORE, "data_access_role_arn": ROLE, "job_name": "j"}, "$start-import-job", STORE, {"InputDataConfig": {"S3Uri": "s3://b/in"}, "JobOutputDataConfig": OUTPUT, "DatastoreId": STORE, "DataAccessRoleArn": ROLE, "JobName": "j"}),
        ("start_fhir_export_job", {"output_data_config": OUTPUT, "datastore_id": STORE, "data_access_role_arn": ROLE}, "$start-export-job", STORE, {"OutputDataConfig": OUTPUT, "DatastoreId": STORE, "DataAccessRoleArn": ROLE}),
        ("describe_fhir_import_job", {"datastore_id": STORE, "job_id": "j"}, "$describe-import-job", STORE, {"DatastoreId": STORE, "JobId": "j"}),
        ("describe_fhir_export_job", {"datastore_id": STORE, "job_id": "j"}, "$describe-export-job", STORE, {"DatastoreId": STORE, "JobId": "j"}),
        ("stop_fhir_import_job", {"datastore_id": STORE, "job_id": "j"}, "$stop-import-job", STORE, {"DatastoreId": STORE, "JobId": "j"}),
        ("stop_fhir_export_job", {"datastore_id": STORE, "job_id": "j"}, "$stop-export-job", STORE, {"DatastoreId": STORE, "JobId": "j"}),
        ("list_fhir_import_jobs", {"datastore_id": STORE, "job_status": "FAILED", "submitted_before": "2024-01-01T00:00:00Z", "submitted_after": "2023-01-01T00:00:00Z"}, "$list-import-jobs", STORE, {"DatastoreId": STORE, "JobStatus": "FAILED", "SubmittedBefore": "2024-01-01T00:00:00Z", "SubmittedAfter": "2023-01-01T00:00:00Z"}),
        ("list_fhir_export_jobs", {"datastore_id": STORE}, "$list-export-jobs", STORE, {"DatastoreId": STORE}),
        ("tag_resource", {"resource_arn": ARN, "tags": [{"Key": "k", "Value": "v"}]}, "$tag-datastore", STORE, {"ResourceARN": ARN, "Tags": [{"Key": "k", "Value": "v"}]}),
        ("untag_resource", {"resource_arn": ARN, "tag_keys": ["k"]}, "$untag-datastore", STORE, {"ResourceARN": ARN, "TagKeys": ["k"]}),
        ("list_tags_for_resource", {"resource_arn": ARN}, "$list-tags", STORE, {"ResourceARN": ARN}),
    ],
)  # fmt: skip
async def test_a_control_tool_speaks_in_the_members_of_aws(
    name: str, arguments: dict[str, Any], operation: str, target: str, request_: dict[str, Any]
) -> None:
    stage = Stage()
    stage.bus.reply = ok(b'{"DatastoreId":"x"}')
    assert (await tool(stage, name, **arguments)).json() == {"DatastoreId": "x"}
    call = stage.bus.call
    assert (call.platform, call.resource.type, call.resource.id, call.operation) == (
        "healthlake",
        "Datastore",
        target,
        operation,
    )
    assert json.loads(stage.bus.bodies[0] or b"") == {"request": request_}
    assert name not in BUILD


async def test_a_region_is_a_name_space_and_the_own_one_needs_no_name() -> None:
    stage = Stage()
    await tool(stage, "list_datastores", region_name="eu-west-1")
    await tool(stage, "list_datastores", region_name="us-west-2")
    read = {"datastore_id": STORE, "resource_type": "Patient", "resource_id": "p"}
    await tool(stage, "read_fhir_resource", **read, region_name="eu-west-1")
    await tool(stage, "read_fhir_resource", **read, region_name="us-west-2")
    assert [json.loads(body or b"{}") for body in stage.bus.bodies[:2]] == [
        {"region": "eu-west-1", "request": {}},
        {"request": {}},
    ]
    assert [call.platform for call in stage.bus.calls[2:]] == [f"{PLATFORM}-eu-west-1", PLATFORM]
    bad = await tool(stage, "list_datastores", region_name="../x")
    assert (
        bad.json()["message"] == "AWS HealthLake Error (ValidationException): region_name is not the name of a region"
    )


@pytest.mark.requirement("HL-12", "B-17")
async def test_in_read_only_mode_the_eleven_changing_tools_fail_and_ask_nobody() -> None:
    quiet = tuple(msgspec.structs.replace(p, writes=False) if p.id == "healthlake" else p for p in PLATFORMS)
    stage = Stage(platforms=quiet)
    changing = {name for name, spec in TOOLS_OF_HL.items() if changes(spec)}
    assert len(changing) == 11
    mutating = {
        "create_datastore": {"datastore_type_version": "R4"}, "delete_datastore": {"datastore_id": STORE},
        "create_fhir_resource": {"datastore_id": STORE, "resource_type": "Patient", "resource_data": PERSON},
        "update_fhir_resource": {"datastore_id": STORE, "resource_type": "Patient", "resource_id": "p", "resource_data": PERSON},
        "patch_fhir_resource": {"datastore_id": STORE, "resource_type": "Patient", "resource_id": "p", "patch_operations": [{}]},
        "delete_fhir_resource": {"datastore_id": STORE, "resource_type": "Patient", "resource_id": "p"},
        "create_fhir_bundle": {"datastore_id": STORE, "bundle_resources": [PERSON]},
        "start_fhir_import_job": {"input_data_config": {"S3Uri": "s3://b"}, "job_output_data_config": OUTPUT, "datastore_id": STORE, "data_access_role_arn": ROLE},
        "start_fhir_export_job": {"output_data_config": OUTPUT, "datastore_id": STORE, "data_access_role_arn": ROLE},
        "tag_resource": {"resource_arn": ARN, "tags": []}, "untag_resource": {"resource_arn": ARN, "tag_keys": []},
    }  # fmt: skip
    assert mutating.keys() == changing
    for name, arguments in mutating.items():
        answer = await tool(stage, name, **arguments)
        said = answer.json()["message"]
        assert (answer.status_code, said) == (
            403,
            "Operation not permitted: HealthLake MCP server is in read-only mode",
        )
    assert stage.bus.calls == []
    looking = TOOLS_OF_HL.keys() - changing
    assert len(looking) == 18
    for name in looking:
        arguments = {key: SAMPLE[key] for key in TOOLS_OF_HL[name].input["required"]}
        assert (await tool(stage, name, **arguments)).status_code == 200, name


@pytest.mark.requirement("HL-13")
@pytest.mark.parametrize(
    ("name", "reply", "text"),
    [
        ("describe_datastore", refused(404, "not_found", "x", b'{"code":"ResourceNotFoundException","message":"gone"}'), "AWS HealthLake Error (ResourceNotFoundException): gone"),
        ("describe_datastore", refused(400, "validation_error", "x", b'{"code":"ValidationException","message":"bad"}'), "AWS HealthLake Error (ValidationException): bad"),
        ("describe_datastore", refused(409, "conflict", "x", b'{"code":"ConflictException","message":"busy"}'), "AWS HealthLake Error (ConflictException): busy"),
        ("describe_datastore", refused(403, "forbidden", "Access denied: no rule"), "AWS HealthLake Error (AccessDeniedException): Access denied: no rule"),
        ("describe_datastore", refused(429, "throttled", "x", b'{"code":"ThrottlingException","message":"slow"}'), "AWS HealthLake Error (ThrottlingException): slow"),
        ("describe_datastore", refused(503, "unavailable", "Nobody is there."), "HTTP 503: Nobody is there."),
        ("get_datastore_capabilities", refused(404, "not_found", "x", outcome_body("There is none.", "not-found")), "FHIR Operation Failed: ERROR: not-found - There is none."),
        ("get_datastore_capabilities", refused(422, "operation_outcome", "x", b'{"resourceType":"OperationOutcome","issue":[{"severity":"error","code":"invalid","diagnostics":"a"},{"severity":"warning","code":"value","details":{"text":"b"}}]}'), "FHIR Operation Failed: ERROR: invalid - a; WARNING: value - b"),
        ("get_datastore_capabilities", refused(403, "forbidden", "Access denied: no rule"), "HTTP 403: Access denied: no rule"),
    ],
)  # fmt: skip
async def test_failures_are_told_in_the_words_of_the_list(name: str, reply: Any, text: str) -> None:
    stage = Stage()
    stage.bus.reply = reply
    assert (await tool(stage, name, datastore_id=STORE)).json()["message"] == text
