"""Coverage routes and tools at the gateway: what is refused before anything is looked up, and what goes on its way."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from gateway.rest_stage import READER, WRITER, Stage, ok, refused
from wardmesh_common.errors import BadRequest
from wardmesh_common.vocabulary import Interaction
from wardmesh_gateway.coverage_calls import check_prior_auth, policy_rules, questionnaire_package
from wardmesh_gateway.mcp_prompts import PROMPTS
from wardmesh_gateway.rules import CPT, check_procedure_code
from wardmesh_gateway.tool_calls import BUILD
from wardmesh_gateway.tools import BY_NAME

pytestmark = pytest.mark.anyio
BASE = "/api/coverage/store"
ASKED = {"patient_id": "p1", "coverage_id": "c1", "procedure_code": "e0601"}
HCPCS = "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets"
JSON = {"content-type": "application/json"}


async def post(stage: Stage, path: str, body: Any, headers: dict[str, str] = READER) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await stage.send("POST", path, headers={**headers, **JSON}, content=content)


async def test_requirements_become_one_call_with_the_code_in_upper_case() -> None:
    stage = Stage()
    stage.bus.reply = ok(b'{"status":"required"}')
    answer = await post(stage, f"{BASE}/requirements", {**ASKED, "code_system": HCPCS})
    assert (answer.status_code, answer.json()) == (200, {"status": "required"})
    assert answer.headers["content-type"] == "application/json"
    call = stage.bus.call
    assert (call.tool, call.interaction, call.operation) == (
        "check_prior_auth",
        Interaction.OPERATION,
        "$check-prior-auth",
    )
    assert (call.resource.type, call.resource.id, call.performer) == ("Coverage", "c1", "fhir")
    told = json.loads(stage.bus.bodies[0] or b"")
    assert told == {"patient_id": "p1", "procedure_code": "E0601", "code_system": HCPCS}


async def test_packages_and_rules_become_calls_with_their_defaults() -> None:
    stage = Stage()
    await post(stage, f"{BASE}/questionnaire-package", {"coverage_id": "c1", "questionnaire_url": None})
    await stage.get(f"{BASE}/rules/70551")
    await stage.get(f"{BASE}/rules/e11.9?code_system=http://hl7.org/fhir/sid/icd-10-cm")
    package, cpt, icd = (json.loads(body or b"") for body in stage.bus.bodies)
    assert package == {"raw_format": False}
    assert cpt == {"procedure_code": "70551", "code_system": CPT}
    assert icd == {"procedure_code": "E11.9", "code_system": "http://hl7.org/fhir/sid/icd-10-cm"}
    assert [call.operation for call in stage.bus.calls] == [
        "$questionnaire-package",
        "$coverage-rules",
        "$coverage-rules",
    ]


@pytest.mark.requirement("FG-8")
@pytest.mark.parametrize(
    ("system", "good", "bad"),
    [
        (CPT, ("70551", "00100"), ("7055", "705511", "7055A", "")),
        (HCPCS, ("E0601", "j1100"), ("60601", "EE601", "E060")),
        ("http://hl7.org/fhir/sid/icd-10-cm", ("E11.9", "i10", "S72001A"), ("E", "E1", "E11.9!")),
        ("http://snomed.info/sct", ("168537006", "123456"), ("12345", "1234567890123456789", "A123456")),
        ("http://example.org/codes", ("ABC", "A1B2C3D4E5"), ("AB", "ABCDEFGHIJK", "A-B")),
    ],
)
async def test_codes_have_the_form_of_their_system(system: str, good: tuple[str, ...], bad: tuple[str, ...]) -> None:
    for code in good:
        assert check_procedure_code(code, system) == code.upper()
    for code in bad:
        with pytest.raises(BadRequest):
            check_procedure_code(code, system)


@pytest.mark.requirement("FG-8")
@pytest.mark.parametrize(
    ("path", "body", "detail"),
    [
        ("/api/coverage/Nowhere/requirements", ASKED, "Invalid platform_id"),
        ("/api/coverage/nowhere/requirements", {**ASKED, "patient_id": "a/b"}, "Invalid patient_id"),
        ("/api/coverage/nowhere/requirements", {**ASKED, "coverage_id": "a b"}, "Invalid coverage_id"),
        ("/api/coverage/nowhere/requirements", ASKED, "Invalid procedure_code"),
        ("/api/coverage/nowhere/requirements", {**ASKED, "code_system": "a b"}, "Invalid code_system"),
        ("/api/coverage/nowhere/questionnaire-package", {"coverage_id": "/"}, "Invalid coverage_id"),
        (
            "/api/coverage/nowhere/questionnaire-package",
            {"coverage_id": "c", "questionnaire_url": "\n"},
            "Invalid questionnaire_url",
        ),
        ("/api/coverage/nowhere/rules/7", None, "Invalid procedure_code"),
    ],
)
async def test_form_errors_come_before_the_platform_and_the_credential(path: str, body: Any, detail: str) -> None:
    stage = Stage()
    answer = await post(stage, path, body, {}) if body else await stage.send("GET", path)
    assert (answer.status_code, answer.json()["detail"].split(":")[0].split(" for ")[0]) == (400, detail)
    assert stage.bus.calls == []


async def test_unknown_platforms_bodies_methods_and_credentials_are_told_apart() -> None:
    stage = Stage()
    good = {**ASKED, "procedure_code": "70551"}
    unknown = await post(stage, "/api/coverage/nowhere/requirements", good)
    assert unknown.status_code == 404
    assert unknown.json()["detail"].startswith("Platform 'nowhere' is not registered.")
    for body in (b"", b"[]", b"{", {"patient_id": "p"}, {**good, "more": 1}, {**good, "patient_id": 1}):
        answer = await post(stage, f"{BASE}/requirements", body)
        assert (answer.status_code, "patient_id" in answer.json()["detail"]) == (422, True)
    huge = await post(stage, f"{BASE}/requirements", {**good, "code_system": "x" * 100_000})
    assert huge.status_code == 413
    assert (await stage.get(f"{BASE}/requirements")).status_code == 405
    assert (await stage.get(f"{BASE}/elsewhere")).status_code == 404
    assert (await stage.get("/api/coverage/store")).status_code == 404
    assert (await stage.get("/api/coverage/bare/rules/70551")).status_code == 503
    assert stage.bus.calls == []


async def test_refusals_of_the_mesh_leave_as_details() -> None:
    stage = Stage()
    stage.bus.reply = refused(403, "forbidden", "Access denied: no rule allows it")
    denied = await post(stage, f"{BASE}/requirements", {**ASKED, "procedure_code": "70551"})
    assert (denied.status_code, denied.json()) == (403, {"detail": "Access denied: no rule allows it"})
    stage.bus.reply = refused(404, "not_found", "x")
    missing = await post(stage, f"{BASE}/requirements", {**ASKED, "procedure_code": "70551"})
    assert (missing.status_code, missing.json()) == (404, {"detail": "Resource not found"})


async def test_the_tools_take_the_same_and_say_the_same() -> None:
    stage = Stage()
    stage.bus.reply = ok(b'{"status":"unknown"}')
    good = {"platform_id": "store", **ASKED, "procedure_code": "70551"}
    answer = await post(stage, "/v1/tools/check_prior_auth", good, WRITER)
    assert answer.json() == {"status": "unknown"}
    assert json.loads(stage.bus.bodies[0] or b"")["code_system"] == CPT
    for given, text in (
        ({**good, "patient_id": "a/b"}, "Invalid patient_id"),
        ({**good, "procedure_code": "x"}, "Invalid procedure_code"),
        ({**good, "platform_id": "nowhere"}, "Platform 'nowhere' not found"),
    ):
        refusal = (await post(stage, "/v1/tools/check_prior_auth", given)).json()
        assert refusal["message"].startswith(text), refusal
    assert len(stage.bus.calls) == 1


def test_arguments_that_are_no_addresses_are_refused_by_the_builders() -> None:
    with pytest.raises(BadRequest):
        policy_rules({"procedure_code": "70551", "code_system": "ä"}, "")
    with pytest.raises(BadRequest):
        questionnaire_package({"coverage_id": "c1", "questionnaire_url": "x" * 600}, "")
    with pytest.raises(BadRequest):
        check_prior_auth({**ASKED, "coverage_id": ""}, "")


def test_every_step_of_every_prompt_names_a_tool_and_parameters_that_exist() -> None:
    steps = [step for prompt in PROMPTS for step in prompt.steps]
    assert {step.tool for step in steps} <= {*BUILD, "list_platforms", *BY_NAME}
    for step in steps:
        assert set(step.parameters) <= set(BY_NAME[step.tool].input["properties"]), step.tool
