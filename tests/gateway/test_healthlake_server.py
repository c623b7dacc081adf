"""The tools of AWS's published server: its names, its parameters, pages and errors, in a profile of its name (HL-15)."""

# ruff: noqa: E501 - tables of cases read better in one line

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.healthlake_stage import MORE, PLATFORM, ROLE, STORE, tool
from gateway.rest_stage import Stage, ok, outcome_body, refused
from wardmesh_common.errors import Problem
from wardmesh_common.vocabulary import Interaction
from wardmesh_gateway.tool_family import typed_problem
from wardmesh_gateway.tools import TOOLS

pytestmark = pytest.mark.anyio
SERVER = "healthlake-mcp-server"
OWN = {spec.shown_as: spec for spec in TOOLS if spec.profiles == (SERVER,)}
# As that server publishes them; `?` marks an optional one.
PARAMETERS = {
    "list_datastores": "filter?",
    "get_datastore_details": "datastore_id",
    "create_fhir_resource": "datastore_id resource_type resource_data",
    "read_fhir_resource": "datastore_id resource_type resource_id",
    "update_fhir_resource": "datastore_id resource_type resource_id resource_data",
    "delete_fhir_resource": "datastore_id resource_type resource_id",
    "search_fhir_resources": "datastore_id resource_type search_params? chained_params? include_params? revinclude_params? count? next_token?",
    "patient_everything": "datastore_id patient_id start? end? count? next_token?",
    "start_fhir_import_job": "datastore_id input_data_config job_output_data_config data_access_role_arn job_name?",
    "start_fhir_export_job": "datastore_id output_data_config data_access_role_arn job_name?",
    "list_fhir_jobs": "datastore_id job_status? job_type?",
}
PAGE = {
    "resourceType": "Bundle",
    "link": [{"relation": "next", "url": "http://gateway.test/api/fhir/x/Patient?_cursor=abc"}],
}
BUNDLE = json.dumps(PAGE).encode()


async def own(stage: Stage, name: str, /, **arguments: Any) -> Any:
    return await tool(stage, f"{SERVER}.{name}", **arguments)


@pytest.mark.requirement("HL-15")
def test_that_profile_has_these_eleven_tools_and_the_other_one_three_more() -> None:
    assert {"get_datastore_details", "patient_everything", "list_fhir_jobs"} == MORE
    assert OWN.keys() == PARAMETERS.keys()
    for name, text in PARAMETERS.items():
        schema = OWN[name].input
        assert set(schema["properties"]) == {word.rstrip("?") for word in text.split()}, name
        assert set(schema["required"]) == {word for word in text.split() if not word.endswith("?")}, name


@pytest.mark.requirement("HL-15")
async def test_a_search_chains_includes_and_pages_and_its_record_has_the_common_name() -> None:
    stage = Stage()
    stage.bus.reply = ok(BUNDLE)
    asked = {
        "search_params": {"status": ["final", "amended"], "date": "ge2020"},
        "chained_params": {"subject:Patient.name": "Smith"},
        "include_params": ["Observation:subject", "Observation:encounter"],
        "revinclude_params": ["Provenance:target"],
        "count": 7,
    }
    answer = await own(stage, "search_fhir_resources", datastore_id=STORE, resource_type="Observation", **asked)
    assert answer.json() == {**PAGE, "pagination": {"has_next": True, "next_token": "abc"}}
    call = stage.bus.calls[-1]
    assert (call.platform, call.interaction, call.tool) == (PLATFORM, Interaction.SEARCH, "search_fhir_resources")
    assert call.query == (
        "_count=7&status=final,amended&date=ge2020&subject:Patient.name=Smith"
        "&_include=Observation:subject&_include=Observation:encounter&_revinclude=Provenance:target"
    )
    again = {"next_token": "abc", "count": 50, "search_params": {"status": "final"}}
    await own(stage, "search_fhir_resources", datastore_id=STORE, resource_type="Observation", **again)
    assert stage.bus.calls[-1].query == "_count=50&_cursor=abc"


@pytest.mark.requirement("HL-15")
@pytest.mark.parametrize("prefix", ["", f"{SERVER}."])
async def test_everything_about_a_patient_comes_in_pages(prefix: str) -> None:
    stage = Stage()
    stage.bus.reply = ok(b'{"resourceType":"Bundle","link":[],"total":1.10}')
    target = {"datastore_id": STORE, "patient_id": "p"}
    answer = await tool(stage, f"{prefix}patient_everything", **target, start="2020-01-01", end="2020-12-31")
    assert answer.text.endswith('"total":1.10,"pagination":{"has_next":false,"next_token":null}}')
    call = stage.bus.calls[-1]
    assert (call.interaction, call.resource.type, call.resource.id) == (Interaction.OPERATION, "Patient", "p")
    assert (call.operation, call.query) == ("$everything", "start=2020-01-01&end=2020-12-31&_count=100")
    await tool(stage, f"{prefix}patient_everything", **target, next_token="t", count=3)
    assert stage.bus.calls[-1].query == "_count=3&_cursor=t"


@pytest.mark.requirement("HL-15")
async def test_jobs_of_both_kinds_are_one_list_each_of_them_decided_and_recorded() -> None:
    stage = Stage()
    stage.bus.reply = ok(b'{"ImportJobPropertiesList":[{"JobId":"i"}],"ExportJobPropertiesList":[{"JobId":"e"}]}')
    both = await own(stage, "list_fhir_jobs", datastore_id=STORE, job_status="COMPLETED")
    assert both.json() == {"ImportJobs": [{"JobId": "i"}], "ExportJobs": [{"JobId": "e"}]}
    assert [call.operation for call in stage.bus.calls] == ["$list-import-jobs", "$list-export-jobs"]
    assert [json.loads(body or b"")["request"]["JobStatus"] for body in stage.bus.bodies] == ["COMPLETED"] * 2
    one = await own(stage, "list_fhir_jobs", datastore_id=STORE, job_type="EXPORT")
    assert "ExportJobPropertiesList" in one.json()
    assert stage.bus.calls[-1].operation == "$list-export-jobs"


@pytest.mark.parametrize("body", [b"{}", b'{"ImportJobPropertiesList":[]}'])
async def test_an_answer_without_its_list_of_jobs_is_a_fault_of_the_control_plane(body: bytes) -> None:
    stage = Stage()
    stage.bus.reply = ok(body)
    answer = await own(stage, "list_fhir_jobs", datastore_id=STORE)
    assert (answer.status_code, answer.json()["type"]) == (502, "service_error")


@pytest.mark.requirement("HL-15")
@pytest.mark.parametrize(
    ("name", "arguments", "operation", "request_"),
    [
        ("list_datastores", {"filter": "ACTIVE"}, "$list-datastores", {"Filter": {"DatastoreStatus": "ACTIVE"}}),
        ("get_datastore_details", {"datastore_id": STORE}, "$describe-datastore", {"DatastoreId": STORE}),
        ("start_fhir_import_job", {"datastore_id": STORE, "input_data_config": {"s3_uri": "s3://b/in"}, "job_output_data_config": {"s3_configuration": {"s3_uri": "s3://b/out", "kms_key_id": "k"}}, "data_access_role_arn": ROLE, "job_name": "j"}, "$start-import-job", {"DatastoreId": STORE, "InputDataConfig": {"S3Uri": "s3://b/in"}, "JobOutputDataConfig": {"S3Configuration": {"S3Uri": "s3://b/out", "KmsKeyId": "k"}}, "DataAccessRoleArn": ROLE, "JobName": "j"}),
        ("start_fhir_export_job", {"datastore_id": STORE, "output_data_config": {"s3_configuration": {"s3_uri": "s3://b/out"}}, "data_access_role_arn": ROLE}, "$start-export-job", {"DatastoreId": STORE, "OutputDataConfig": {"S3Configuration": {"S3Uri": "s3://b/out"}}, "DataAccessRoleArn": ROLE}),
    ],
)  # fmt: skip
async def test_its_words_become_those_of_aws(
    name: str, arguments: dict[str, Any], operation: str, request_: dict[str, Any]
) -> None:
    stage = Stage()
    assert (await own(stage, name, **arguments)).status_code == 200
    assert stage.bus.calls[-1].operation == operation
    assert json.loads(stage.bus.bodies[0] or b"") == {"request": request_}


async def test_a_resource_need_not_repeat_the_type_beside_it() -> None:
    stage = Stage()
    target = {"datastore_id": STORE, "resource_type": "Patient", "resource_data": {"active": True}}
    await own(stage, "create_fhir_resource", **target)
    await own(stage, "update_fhir_resource", **target, resource_id="p")
    created, updated = (json.loads(body or b"") for body in stage.bus.bodies)
    assert created == {"resourceType": "Patient", "active": True}
    assert updated == {**created, "id": "p"}


@pytest.mark.requirement("HL-15")
@pytest.mark.parametrize(
    ("arguments", "reply", "status", "kind"),
    [
        ({"count": 0}, None, 400, "validation_error"),
        ({"count": 101}, None, 400, "validation_error"),
        ({"datastore_id": "x"}, None, 400, "validation_error"),
        ({}, refused(404, "not_found", "x", outcome_body("There is none.", "not-found")), 404, "not_found"),
        ({}, refused(403, "forbidden", "Access denied: no rule"), 403, "auth_error"),
        ({}, refused(503, "unavailable", "Nobody is there."), 503, "service_error"),
        ({}, refused(500, "internal_error", "Something went wrong."), 500, "server_error"),
    ],
)
async def test_its_errors_have_a_type_and_a_message(
    arguments: dict[str, Any], reply: Any, status: int, kind: str
) -> None:
    stage = Stage()
    stage.bus.reply = reply or ok(BUNDLE)
    asked = {"datastore_id": STORE, "resource_type": "Patient", **arguments}
    answer = await own(stage, "search_fhir_resources", **asked)
    said = answer.json()
    assert (answer.status_code, said["error"], said["type"]) == (status, True, kind)
    assert said.keys() == {"error", "type", "message"}
    assert said["message"]
    assert bool(stage.bus.calls) == (reply is not None)


def test_every_status_has_one_of_the_five_types() -> None:
    found = {typed_problem(Problem(code="x", status=status, detail="d"))["type"] for status in range(400, 600)}
    assert found == {"validation_error", "not_found", "auth_error", "service_error", "server_error"}


@pytest.mark.requirement("HL-15")
async def test_the_gateway_says_that_it_is_there_and_that_it_is_ready() -> None:
    stage = Stage()
    assert (await stage.send("GET", "/health")).json()["status"] == "healthy"
    ready = await stage.send("GET", "/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "service": "fhir-gateway"})


async def test_a_gateway_that_knows_no_platforms_is_not_ready() -> None:
    stage = Stage()
    stage.platforms._snapshot = None
    answer = await stage.send("GET", "/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "not ready")
