"""The SMART server's tools: their names and parameters, what they ask for, and their error texts (SM-5, SM-6, SM-12)."""

# ruff: noqa: E501 - tables of cases read better in one line

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.rest_stage import READER, WRITER, Stage, ok, outcome_body, refused
from wardmesh_common.errors import Unavailable
from wardmesh_common.tokens import principal_id
from wardmesh_common.vocabulary import Interaction
from wardmesh_gateway.tools import TOOLS

pytestmark = pytest.mark.anyio
PERSON = {"resourceType": "Patient", "name": [{"family": "Doe"}]}
SMEDREC = {tool.name: tool for tool in TOOLS if tool.profiles == ("smedrec",)}


async def tool(stage: Stage, name: str, arguments: dict[str, Any], headers: dict[str, str] = WRITER) -> Any:
    given = {**headers, "content-type": "application/json"}
    return await stage.send("POST", f"/v1/tools/{name}", headers=given, content=json.dumps(arguments).encode())


def test_there_are_twelve_tools_for_three_kinds_and_five_for_any() -> None:
    kinds = [
        f"fhir{kind}{verb}"
        for kind in ("Patient", "Practitioner", "Organization")
        for verb in ("Create", "Read", "Update", "Search")
    ]
    wide = [f"fhirResource{verb}" for verb in ("Create", "Read", "Update", "Search", "Delete")]
    assert set(SMEDREC) == {*kinds, *wide}
    assert SMEDREC["fhirPatientUpdate"].input["required"] == ["id", "resource"]
    assert SMEDREC["fhirResourceSearch"].input["required"] == ["resourceType", "searchParams"]


@pytest.mark.parametrize(
    ("name", "arguments", "interaction", "target", "query"),
    [
        ("fhirPatientCreate", {"resource": PERSON}, Interaction.CREATE, ("Patient", ""), ""),
        ("fhirPractitionerRead", {"id": "p"}, Interaction.READ, ("Practitioner", "p"), ""),
        ("fhirPatientUpdate", {"id": "p", "resource": PERSON}, Interaction.UPDATE, ("Patient", "p"), ""),
        ("fhirPatientSearch", {"name": "Smith", "birthdate": ["ge1990-01-01", "le2000"]}, Interaction.SEARCH, ("Patient", ""), "name=Smith&birthdate=ge1990-01-01&birthdate=le2000"),
        ("fhirOrganizationSearch", {"params": {"name": "A"}}, Interaction.SEARCH, ("Organization", ""), "name=A"),
        ("fhirPatientSearch", {"name": "A", "params": {"gender": "male"}}, Interaction.SEARCH, ("Patient", ""), "name=A&gender=male"),
        ("fhirResourceSearch", {"resourceType": "Observation", "searchParams": {"code": "x"}}, Interaction.SEARCH, ("Observation", ""), "code=x"),
        ("fhirResourceCreate", {"resourceType": "Patient", "resource": PERSON}, Interaction.CREATE, ("Patient", ""), ""),
        ("fhirResourceRead", {"resourceType": "Patient", "id": "123"}, Interaction.READ, ("Patient", "123"), ""),
        ("fhirResourceUpdate", {"resourceType": "Patient", "id": "p", "resource": PERSON}, Interaction.UPDATE, ("Patient", "p"), ""),
        ("fhirResourceDelete", {"resourceType": "Organization", "id": "o"}, Interaction.DELETE, ("Organization", "o"), ""),
    ],
)  # fmt: skip
async def test_a_tool_is_one_interaction_on_the_configured_platform(
    name: str, arguments: dict[str, Any], interaction: Interaction, target: tuple[str, str], query: str
) -> None:
    stage = Stage()
    answer = await tool(stage, name, arguments)
    assert (answer.status_code, answer.content) == (200, stage.bus.reply.body)  # type: ignore[union-attr]
    call = stage.bus.call
    assert (call.platform, call.interaction, call.query) == ("store", interaction, query)
    assert (call.resource.type, call.resource.id) == target


async def test_the_platform_is_the_one_with_that_fhir_base() -> None:
    stage = Stage(smart_issuer="https://sandbox.test/r4/")
    await tool(stage, "fhirPatientRead", {"id": "p"})
    assert stage.bus.call.platform == "smarthealthit-sandbox-patient"
    unknown = await tool(Stage(smart_issuer="https://nowhere.test"), "fhirPatientRead", {"id": "p"})
    assert unknown.status_code == 503


@pytest.mark.requirement("SM-12")
@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (refused(404, "not_found", "x", outcome_body("No such patient.", "not-found")), "FHIR Patient read failed: Status 404 - No such patient."),
        (refused(410, "deleted", "x"), "FHIR Patient read failed: Status 410"),
        (refused(422, "operation_outcome", "x", outcome_body("first")), "FHIR Patient read failed: Status 422 - first"),
        (refused(502, "upstream_unavailable", "x"), "FHIR Patient read failed: Status 502"),
        (Unavailable("away"), "FHIR Patient read failed: Status 503"),
    ],
)  # fmt: skip
async def test_failures_of_the_server_are_told_with_kind_action_and_status(reply: Any, text: str) -> None:
    stage = Stage()
    stage.bus.reply = reply
    assert (await tool(stage, "fhirPatientRead", {"id": "p"})).json()["message"] == text
    assert len(stage.bus.calls) == 1
    missing = await tool(stage, "fhirPatientRead", {})
    assert missing.status_code == 400
    assert len(stage.bus.calls) == 1, "arguments that do not fit never reach policy"


async def test_a_refusal_of_policy_names_who_may_not_do_what() -> None:
    stage = Stage()
    who = principal_id("https://issuer.test", "doctor")
    reply = msgspec.structs.replace(
        refused(403, "forbidden", "Access denied: no rule"), refused_id=who, refused_roles=("Doctor",)
    )
    stage.bus.reply = msgspec.structs.replace(reply, station="policy")
    said = (await tool(stage, "fhirPatientRead", {"id": "p"})).json()["message"]
    assert said == f"Forbidden: User {who} with roles [Doctor] not authorized to perform 'read' on Patient/p."
    # A policy that cannot be asked is a refusal as well.
    stage.bus.reply = msgspec.structs.replace(refused(503, "unavailable", "away"), station="policy")
    assert (await tool(stage, "fhirPatientSearch", {})).json()["message"].startswith("Forbidden: User ")
    # What the platform itself forbids is the platform's failure.
    stage.bus.reply = msgspec.structs.replace(reply, station="fhir-proxy")
    assert (await tool(stage, "fhirPatientRead", {"id": "p"})).json()[
        "message"
    ] == "FHIR Patient read failed: Status 403"


async def test_without_a_session_at_the_platform_there_is_no_client_and_a_place_to_sign_in() -> None:
    stage = Stage(smart_platform="smarthealthit-sandbox-patient")
    stage.bus.reply = refused(401, "sign_in_required", "sign in first")
    said = (await tool(stage, "fhirPatientRead", {"id": "p"}, READER)).json()["message"]
    assert said.startswith("FHIR client not available. Open http://gateway.test/auth/")


async def test_a_delete_without_a_body_says_that_it_was_done() -> None:
    stage = Stage()
    stage.bus.reply = ok(b"", 204)
    answer = (await tool(stage, "fhirResourceDelete", {"resourceType": "Patient", "id": "p"})).json()
    assert (answer["resourceType"], answer["issue"][0]["severity"]) == ("OperationOutcome", "information")
