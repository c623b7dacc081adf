"""The datastore tools: 29 with their parameters, what they ask the door for, results and texts (HL-1 to HL-13)."""

# ruff: noqa: E501 - tables of cases read better in one line

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.healthlake_stage import PERSON, PLATFORM, STORE, TOOLS_OF_HL, tool
from gateway.rest_stage import Stage, ok, outcome_body
from wardmesh_common.vocabulary import Interaction
from wardmesh_gateway.healthlake_bundles import bundle_of
from wardmesh_gateway.healthlake_patches import parameters_of
from wardmesh_gateway.healthlake_templates import WORKED_OUT, validate
from wardmesh_gateway.tools import TOOLS
from wardmesh_gateway.tools_healthlake_more import STOP_TOOLS

pytestmark = pytest.mark.anyio
# Parameter lists as HL-1 to HL-11 give them; `?` marks an optional one, all but three take region_name? as well.
PARAMETERS = {
    "create_datastore": "datastore_type_version datastore_name? sse_configuration? preload_data_config? client_token? tags? identity_provider_configuration?",
    "delete_datastore": "datastore_id",
    "describe_datastore": "datastore_id",
    "list_datastores": "filter_dict? next_token? max_results?",
    "get_datastore_capabilities": "datastore_id",
    "read_fhir_resource": "datastore_id resource_type resource_id version_id?",
    "search_fhir_resources": "datastore_id resource_type query_parameters?",
    "search_fhir_resources_advanced": "datastore_id resource_type search_parameters? include_parameters? revinclude_parameters? sort_parameters? count?",
    "search_all_resources": "datastore_id query_parameters? count?",
    "create_fhir_resource": "datastore_id resource_type resource_data if_none_exist?",
    "update_fhir_resource": "datastore_id resource_type resource_id resource_data if_match?",
    "delete_fhir_resource": "datastore_id resource_type resource_id if_match?",
    "patch_fhir_resource": "datastore_id resource_type resource_id patch_operations patch_format? if_match?",
    "get_fhir_resource_history": "datastore_id resource_type resource_id count? since?",
    "get_fhir_resource_compartment": "datastore_id compartment_type compartment_id resource_type? query_parameters?",
    "create_fhir_bundle": "datastore_id bundle_resources bundle_type?",
    "validate_fhir_resource": "resource_data resource_type?",
    "validate_fhir_resource_against_profile": "datastore_id resource_data profile_url?",
    "create_patient_template": "family_name given_names gender birth_date identifier_system? identifier_value? phone? email? address?",
    "create_observation_template": "patient_reference code_system code_value code_display status? value_quantity? value_string? effective_datetime? category_code?",
    "start_fhir_import_job": "input_data_config job_output_data_config datastore_id data_access_role_arn job_name? client_token?",
    "start_fhir_export_job": "output_data_config datastore_id data_access_role_arn job_name? client_token?",
    "describe_fhir_import_job": "datastore_id job_id",
    "describe_fhir_export_job": "datastore_id job_id",
    "list_fhir_import_jobs": "datastore_id next_token? max_results? job_name? job_status? submitted_before? submitted_after?",
    "list_fhir_export_jobs": "datastore_id next_token? max_results? job_name? job_status? submitted_before? submitted_after?",
    "tag_resource": "resource_arn tags",
    "untag_resource": "resource_arn tag_keys",
    "list_tags_for_resource": "resource_arn",
}  # fmt: skip


def test_there_are_29_tools_with_exactly_these_parameters() -> None:
    assert len(PARAMETERS) == 29
    assert not {tool.name for tool in STOP_TOOLS} & {tool.name for tool in TOOLS if tool.profiles}, (
        "in no profile's list"
    )
    assert TOOLS_OF_HL.keys() == PARAMETERS.keys()
    for name, text in PARAMETERS.items():
        words = text.split() + ([] if name in WORKED_OUT else ["region_name?"])
        schema = TOOLS_OF_HL[name].input
        assert set(schema["properties"]) == {word.rstrip("?") for word in words}, name
        assert set(schema["required"]) == {word for word in words if not word.endswith("?")}, name


@pytest.mark.parametrize(
    ("name", "arguments", "interaction", "target", "query"),
    [
        ("get_datastore_capabilities", {}, Interaction.CAPABILITIES, ("", "", "", ""), ""),
        ("read_fhir_resource", {"resource_type": "Patient", "resource_id": "p"}, Interaction.READ, ("Patient", "p", "", ""), ""),
        ("read_fhir_resource", {"resource_type": "Patient", "resource_id": "p", "version_id": "2"}, Interaction.VREAD, ("Patient", "p", "2", ""), ""),
        ("search_fhir_resources", {"resource_type": "Patient", "query_parameters": {"date": ["ge1", "le2"]}}, Interaction.SEARCH, ("Patient", "", "", ""), "date=ge1&date=le2"),
        ("search_fhir_resources_advanced", {"resource_type": "Patient", "search_parameters": {"name": "S"}, "include_parameters": ["Patient:general-practitioner"], "revinclude_parameters": ["Observation:subject"], "sort_parameters": ["family", "given"], "count": 10}, Interaction.SEARCH, ("Patient", "", "", ""), "name=S&_include=Patient:general-practitioner&_revinclude=Observation:subject&_sort=family,given&_count=10"),
        ("search_all_resources", {"query_parameters": {"_lastUpdated": "gt2023"}, "count": 50}, Interaction.SEARCH, ("", "", "", ""), "_lastUpdated=gt2023&_count=50"),
        ("get_fhir_resource_history", {"resource_type": "Patient", "resource_id": "p", "count": 10, "since": "2023-01-01T00:00:00Z"}, Interaction.HISTORY, ("Patient", "p", "", ""), "_count=10&_since=2023-01-01T00:00:00Z"),
        ("get_fhir_resource_compartment", {"compartment_type": "Patient", "compartment_id": "p"}, Interaction.SEARCH, ("Patient", "p", "", "*"), ""),
        ("get_fhir_resource_compartment", {"compartment_type": "Patient", "compartment_id": "p", "resource_type": "Observation", "query_parameters": {"category": "vital-signs"}}, Interaction.SEARCH, ("Patient", "p", "", "Observation"), "category=vital-signs"),
        ("validate_fhir_resource_against_profile", {"resource_data": PERSON, "profile_url": "http://x/P"}, Interaction.OPERATION, ("Patient", "", "", "$validate"), "profile=http://x/P"),
        ("delete_fhir_resource", {"resource_type": "Patient", "resource_id": "p"}, Interaction.DELETE, ("Patient", "p", "", ""), ""),
    ],
)  # fmt: skip
async def test_a_data_tool_is_one_fhir_interaction_on_the_datastore(
    name: str, arguments: dict[str, Any], interaction: Interaction, target: tuple[str, ...], query: str
) -> None:
    stage = Stage()
    assert (await tool(stage, name, datastore_id=STORE, **arguments)).status_code == 200
    call = stage.bus.call
    assert (call.platform, call.interaction, call.tool) == (PLATFORM, interaction, name)
    assert (call.resource.type, call.resource.id, call.resource.version, call.operation) == target
    assert call.query == query


@pytest.mark.requirement("HL-4")
async def test_writes_carry_their_condition_and_drop_or_fill_the_id() -> None:
    stage = Stage()
    target = {"datastore_id": STORE, "resource_type": "Patient"}
    await tool(
        stage, "create_fhir_resource", **target, resource_data={**PERSON, "id": "x"}, if_none_exist="identifier=a|b"
    )
    await tool(stage, "update_fhir_resource", **target, resource_id="p", resource_data=PERSON, if_match='W/"1"')
    await tool(stage, "delete_fhir_resource", **target, resource_id="p", if_match='W/"1"')
    created, updated, deleted = stage.bus.calls
    assert json.loads(stage.bus.bodies[0] or b"") == PERSON
    assert json.loads(stage.bus.bodies[1] or b"") == {**PERSON, "id": "p"}
    assert created.headers["if-none-exist"] == "identifier=a|b"
    assert updated.headers["if-match"] == deleted.headers["if-match"] == 'W/"1"'


async def test_a_delete_answers_with_its_status() -> None:
    stage = Stage()
    stage.bus.reply = ok(b"", 204)
    answer = await tool(stage, "delete_fhir_resource", datastore_id=STORE, resource_type="Patient", resource_id="p")
    assert answer.json() == {"status": "success", "statusCode": 204}


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("create_fhir_resource", {"resource_type": "Observation", "resource_data": PERSON}, "Resource type mismatch: URL specifies 'Observation' but resource contains 'Patient'"),
        ("update_fhir_resource", {"resource_type": "Patient", "resource_id": "a", "resource_data": {**PERSON, "id": "b"}}, "Resource ID mismatch: URL specifies 'a' but resource contains 'b'"),
        ("create_fhir_bundle", {"bundle_resources": [{"resourceType": "Observation", "subject": {"reference": "Patient/temp-id"}}]}, "Cannot resolve reference 'Patient/temp-id': the bundle holds none without an id."),
        ("create_fhir_bundle", {"bundle_resources": [PERSON, PERSON, {"resourceType": "Observation", "subject": {"reference": "Patient/temp-id"}}]}, "Cannot resolve reference 'Patient/temp-id': the bundle holds several without an id."),
    ],
)  # fmt: skip
async def test_what_cannot_be_meant_fails_before_a_call_with_its_literal_text(
    name: str, arguments: dict[str, Any], text: str
) -> None:
    stage = Stage()
    answer = await tool(stage, name, datastore_id=STORE, **arguments)
    assert (answer.status_code, answer.json()["message"]) == (400, text)
    assert stage.bus.calls == []


@pytest.mark.requirement("HL-5", "X-41")
async def test_both_kinds_of_patch_are_sent_as_what_they_are() -> None:
    stage = Stage()
    target = {"datastore_id": STORE, "resource_type": "Patient", "resource_id": "p", "if_match": 'W/"3"'}
    steps = [{"op": "replace", "path": "/active", "value": True}]
    await tool(stage, "patch_fhir_resource", **target, patch_operations=steps)
    fhir = [{"type": "replace", "path": "Patient.birthDate", "value": {"valueDate": "1970-01-01"}}]
    await tool(stage, "patch_fhir_resource", **target, patch_operations=fhir, patch_format="fhir-patch")
    ready = {"resourceType": "Parameters", "parameter": []}
    await tool(stage, "patch_fhir_resource", **target, patch_operations=[ready], patch_format="fhir-patch")
    assert [call.media_type for call in stage.bus.calls] == [
        "application/json-patch+json",
        *["application/fhir+json"] * 2,
    ]
    assert {call.headers["if-match"] for call in stage.bus.calls} == {'W/"3"'}
    sent = [json.loads(body or b"") for body in stage.bus.bodies]
    parts = sent[1]["parameter"][0]["part"]
    assert (sent[0], sent[2]) == (steps, ready)
    assert parts == [
        {"name": "type", "valueCode": "replace"},
        {"name": "path", "valueString": "Patient.birthDate"},
        {"name": "value", "valueDate": "1970-01-01"},
    ]


def test_values_of_a_fhirpath_patch_get_the_type_that_json_gives_them() -> None:
    steps = [{"type": "add", "path": "Patient", "name": "active", "value": value} for value in (True, 1, 1.5, "a")]
    made = parameters_of([*steps, {"type": "move", "path": "Patient.name", "source": 1, "destination": 0}])
    values = [operation["part"][-1] for operation in made["parameter"]]
    assert values[:4] == [
        {"name": "value", "valueBoolean": True},
        {"name": "value", "valueInteger": 1},
        {"name": "value", "valueDecimal": 1.5},
        {"name": "value", "valueString": "a"},
    ]
    assert made["parameter"][4]["part"][2:] == [
        {"name": "source", "valueInteger": 1},
        {"name": "destination", "valueInteger": 0},
    ]


@pytest.mark.requirement("HL-7", "X-40")
def test_bundle_entries_have_full_urls_and_references_to_the_one_without_an_id() -> None:
    names = iter(f"urn:uuid:{n}" for n in range(9))
    weight = {"resourceType": "Observation", "id": "o", "subject": {"reference": "Patient/temp-id"}}
    made = bundle_of([PERSON, weight], "transaction", lambda: next(names))
    assert [entry["request"] for entry in made["entry"]] == [
        {"method": "POST", "url": "Patient"},
        {"method": "PUT", "url": "Observation/o"},
    ]
    assert made["entry"][1]["resource"]["subject"]["reference"] == made["entry"][0]["fullUrl"] == "urn:uuid:0"
    collected = bundle_of([PERSON], "collection")["entry"][0]
    assert "request" not in collected
    assert collected["fullUrl"].startswith("urn:uuid:")


@pytest.mark.parametrize(
    ("kind", "interaction", "entries"),
    [
        ("transaction", Interaction.TRANSACTION, 2),
        ("batch", Interaction.BATCH, 2),
        ("collection", Interaction.CREATE, 0),
    ],
)
async def test_policy_sees_every_entry_of_a_bundle(kind: str, interaction: Interaction, entries: int) -> None:
    stage = Stage()
    await tool(
        stage,
        "create_fhir_bundle",
        datastore_id=STORE,
        bundle_resources=[PERSON, {**PERSON, "id": "p"}],
        bundle_type=kind,
    )
    call = stage.bus.call
    assert (call.interaction, len(call.entries)) == (interaction, entries)
    assert (json.loads(stage.bus.bodies[0] or b"")["type"], call.resource.type) == (kind, "" if entries else "Bundle")


@pytest.mark.requirement("HL-8")
@pytest.mark.parametrize(
    ("resource", "wanted", "issues", "warnings"),
    [
        (PERSON, "Patient", [], []),
        ({"id": "a"}, None, ["Missing required 'resourceType' field"], []),
        (PERSON, "Observation", ["Resource type mismatch: expected 'Observation', got 'Patient'"], []),
        ({"resourceType": "Observation"}, None, ["Missing required field: 'status'", "Missing required field: 'code'"], []),
        ({"resourceType": "Condition"}, None, ["Missing required field: 'subject'"], []),
        ({**PERSON, "id": ""}, None, ["Resource 'id' must be a non-empty string"], []),
        ({**PERSON, "id": 7}, None, ["Resource 'id' must be a non-empty string"], []),
        ({"resourceType": "Patient"}, None, [], ["Patient should have either 'name' or 'identifier' field"]),
    ],
)  # fmt: skip
async def test_the_quick_check_says_these_words_and_asks_nobody(
    resource: dict[str, Any], wanted: str | None, issues: list[str], warnings: list[str]
) -> None:
    stage = Stage()
    arguments = {"resource_data": resource} | ({"resource_type": wanted} if wanted else {})
    answer = (await tool(stage, "validate_fhir_resource", **arguments)).json()
    assert answer == {"valid": not issues, "issues": issues, "warnings": warnings}
    assert stage.bus.calls == []
    stage.bus.reply = ok(outcome_body("fine", "informational"))
    judged = {"resourceType": "Patient", **resource}
    told = await tool(stage, "validate_fhir_resource_against_profile", datastore_id=STORE, resource_data=judged)
    assert told.json()["resourceType"] == "OperationOutcome"
    assert stage.bus.call.operation == "$validate"


@pytest.mark.requirement("HL-9")
async def test_templates_hold_what_was_given_pass_the_check_and_are_not_stored() -> None:
    stage = Stage()
    person = {"family_name": "Doe", "given_names": ["John"], "gender": "male", "birth_date": "1970-01-01"}
    plain = (await tool(stage, "create_patient_template", **person, identifier_system="http://x")).json()
    assert "identifier" not in plain
    assert "telecom" not in plain
    more = {
        "identifier_system": "http://x",
        "identifier_value": "1",
        "phone": "+1",
        "email": "a@b",
        "address": {"city": "X"},
    }
    full = (await tool(stage, "create_patient_template", **person, **more)).json()
    assert full["telecom"] == [{"system": "phone", "value": "+1", "use": "home"}, {"system": "email", "value": "a@b"}]
    assert (full["identifier"], full["address"]) == ([{"system": "http://x", "value": "1"}], [{"city": "X"}])
    heart = {
        "patient_reference": "Patient/p",
        "code_system": "http://loinc.org",
        "code_value": "8867-4",
        "code_display": "Heart rate",
    }
    text = (await tool(stage, "create_observation_template", **heart, value_string="a")).json()
    assert (text["valueString"], text["status"]) == ("a", "final")
    assert text["effectiveDateTime"].endswith("Z")
    both = (
        await tool(
            stage,
            "create_observation_template",
            **heart,
            value_string="a",
            value_quantity={"value": 72},
            category_code="vital-signs",
            status="amended",
            effective_datetime="2024-01-01",
        )
    ).json()
    assert (both["valueQuantity"], both["status"], both["effectiveDateTime"]) == (
        {"value": 72},
        "amended",
        "2024-01-01",
    )
    assert "valueString" not in both
    system = "http://terminology.hl7.org/CodeSystem/observation-category"
    assert both["category"] == [{"coding": [{"system": system, "code": "vital-signs"}]}]
    assert all(validate({"resource_data": made})["valid"] for made in (plain, full, text, both))
    assert stage.bus.calls == []
