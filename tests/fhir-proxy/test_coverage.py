"""The coverage desk asks whether prior authorization is needed: what it sends, understands and keeps back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from payer_stage import COVERAGE, CPT, DISCOVERY, FORM, Payer, crd, information, read
from wardmesh_common.contracts import Call
from wardmesh_common.vocabulary import Grant, Obligations
from wardmesh_fhir_proxy.coverage_desk import concerns
from wardmesh_fhir_proxy.coverage_requirement import requirement_in
from wardmesh_fhir_proxy.descriptor import Coverage

pytestmark = pytest.mark.anyio


@pytest.fixture
async def payer(bench: Any) -> Payer:
    return Payer(bench)


async def test_a_check_asks_the_order_sign_service_and_says_what_it_said(payer: Payer) -> None:
    payer.answers["cds-services/signing"] = (
        200,
        crd(
            information(
                covered="covered",
                pa_needed="auth-needed",
                doc_needed="clinical",
                info_needed=["performer", "location"],
                reason={"text": "Imaging is authorized"},
                questionnaire=FORM["url"],
            )
        ),
    )
    outcome = await payer.check()
    assert read(outcome) == {
        "status": "required",
        "platform": {"id": "probe", "name": "Probe", "endpoint": payer.bench.upstream.base},
        "procedure_code": "70551",
        "code_system": CPT,
        "questionnaire_url": FORM["url"],
        "documentation_required": True,
        "info_needed": ["performer", "location"],
        "reason": "Imaging is authorized",
        "coverage_id": "c1",
        "patient_id": "p1",
    }
    assert (outcome.event, outcome.media_type) == ("coverage.check", "application/json")
    assert {(each.patient, each.type, each.ids) for each in outcome.touched} == {
        ("probe/Patient/p1", "Coverage", ("c1",)),
        ("probe/Patient/p1", "Patient", ("p1",)),
    }


async def test_the_service_gets_the_draft_and_no_more_of_the_person_than_it_asks_for(payer: Payer) -> None:
    await payer.check()
    request = payer.sent("cds-services/signing")
    (order,) = (entry["resource"] for entry in request["context"]["draftOrders"]["entry"])
    assert order["code"]["coding"] == [{"system": CPT, "code": "70551"}]
    assert (request["hook"], request["context"]["patientId"]) == ("order-sign", "p1")
    assert not {"fhirServer", "fhirAuthorization"} & set(request)
    assert set(request["prefetch"]) == {"who", "cov"}
    assert set(request["prefetch"]["who"]) == {"resourceType", "id", "name", "birthDate"}
    (found,) = (entry["resource"] for entry in request["prefetch"]["cov"]["entry"])
    assert "text" not in found
    assert found["subscriberId"] == "S1"


async def test_a_service_that_asks_for_no_patient_gets_none_and_the_patient_is_not_read(payer: Payer) -> None:
    payer.answers["cds-services"] = (200, {"services": [DISCOVERY["services"][1]]})
    payer.answers["cds-services/selecting"] = (200, crd(information(pa_needed="no-auth", doc_needed="no-doc")))
    answer = read(await payer.check())
    assert (answer["status"], answer["documentation_required"]) == ("not-required", False)
    request = payer.sent("cds-services/selecting")
    assert request["context"]["selections"] == ["ServiceRequest/draft"]
    assert "Patient/p1" not in payer.paths


async def test_what_services_there_are_is_asked_once_in_five_minutes(payer: Payer) -> None:
    for _ in range(3):
        await payer.check()
    assert payer.paths.count("cds-services") == 1
    assert payer.paths.count("cds-services/signing") == 3


async def test_the_service_that_the_descriptor_names_is_used(payer: Payer) -> None:
    payer.bench.describe(coverage={"crd_url": "base", "crd_service": "selecting"})
    payer.answers["cds-services/selecting"] = (200, crd(information(pa_needed="conditional")))
    assert read(await payer.check())["status"] == "conditional"
    payer.bench.describe(coverage={"crd_url": "base", "crd_service": "gone"})
    assert read(await payer.check())["status"] == "unknown"


async def test_the_token_stays_at_the_platforms_own_base(bench: Any, payer: Payer) -> None:
    elsewhere = bench.upstream.base.replace("127.0.0.1", "localhost")
    bench.describe(
        headers={"X-Api-Key": "k"},
        coverage={"crd_url": elsewhere, "dtr_url": elsewhere, "rules_url": "base"},
    )
    held = Grant(platform="probe", sealed_token=b"sealed")
    await payer.check(grant=held)
    await payer.package(grant=held)
    await payer.rules(grant=held)
    for seen in bench.upstream.requests:
        own = seen.path.removeprefix("/r4/").split("/")[0] in ("Coverage", "Patient", "PlanDefinition")
        assert (seen.headers.get("Authorization") == "Bearer first") is own, seen.path
        assert ("X-Api-Key" in seen.headers) is own, seen.path


async def test_a_token_that_the_platform_refuses_is_renewed_once(bench: Any, payer: Payer) -> None:
    refused: list[str] = []

    def respond(seen: Any) -> web.Response:
        if seen.headers.get("Authorization") == "Bearer first":
            refused.append(seen.path)
            return web.Response(status=401)
        return payer.respond(seen)

    bench.upstream.respond, bench.renewed = respond, "second"
    held = Grant(platform="probe", sealed_token=b"sealed")
    assert (await payer.check(grant=held)).status == 200
    assert refused == ["/r4/Coverage/c1"]
    bench.upstream.answer(b"", 401)
    assert (await payer.check(grant=held)).status == 401


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"pa_needed": "auth-needed"}, "required"),
        ({"pa_needed": "performpa"}, "required"),
        ({"pa_needed": "no-auth"}, "not-required"),
        ({"pa_needed": "satisfied"}, "not-required"),
        ({"pa_needed": "conditional"}, "conditional"),
        ({"covered": "conditional"}, "conditional"),
        ({"covered": "covered"}, "unknown"),
        ({"covered": "not-covered"}, "unknown"),
        ({"pa_needed": "maybe"}, "unknown"),
        ({"pa_needed": "maybe", "covered": "conditional"}, "unknown"),
        ({}, "unknown"),
    ],
)
@pytest.mark.parametrize("actions", ["systemActions", "cards"])
def test_codes_become_a_status_and_what_is_not_said_is_unknown(said: Any, status: str, actions: str) -> None:
    found = requirement_in(crd(information(**said), actions=actions), "c1", "70551", ())
    assert found.status == status
    assert (status != "unknown") or found.reason


def test_prose_is_never_taken_for_an_answer_and_loses_addresses_of_the_inside() -> None:
    card = {"summary": "Prior authorization is required, see http://10.0.0.1:8080/x at payer.internal:9000"}
    found = requirement_in({"cards": [card]}, "c1", "70551", ())
    assert found.status == "unknown"
    assert "10.0.0.1" not in found.reason
    assert "payer.internal" not in found.reason


def test_several_assertions_are_as_strict_as_the_strictest_about_this_coverage_and_code() -> None:
    foreign = information(pa_needed="auth-needed")
    foreign["extension"][0]["valueReference"]["reference"] = "Coverage/other"
    billed = information(pa_needed="auth-needed")
    billed["extension"].append({"url": "billingCode", "valueCoding": {"code": "99999"}})
    free, needed = information(pa_needed="no-auth"), information(pa_needed="conditional")
    assert requirement_in(crd(foreign, billed, free), "c1", "70551", ()).status == "not-required"
    assert requirement_in(crd(free, needed), "c1", "70551", ()).status == "conditional"


@pytest.mark.parametrize(
    ("path", "answer", "status"),
    [
        ("cds-services", (200, b"<html>"), 502),
        ("cds-services", (200, b"[]"), 502),
        ("cds-services", (500, b"Traceback"), 502),
        ("cds-services/signing", (200, b"{"), 502),
        ("cds-services/signing", (401, b""), 401),
        ("cds-services/signing", (404, b""), 502),
        ("cds-services/signing", (200, b'{"a":' + b"[" * 2000 + b"]" * 2000 + b"}"), 502),
        ("Coverage/c1", (404, b""), 404),
        ("Coverage/c1", (410, b""), 404),
        ("Coverage/c1", (200, b'{"resourceType":"Coverage","id":"c2"}'), 502),
        ("Patient/p1", (500, b"at com.acme.Patient(File.java:3)"), 502),
    ],
)
async def test_a_payer_that_answers_badly_is_a_clear_error_and_recorded(
    payer: Payer, path: str, answer: tuple[int, bytes], status: int
) -> None:
    payer.answers[path] = answer
    outcome = await payer.check()
    assert outcome.problem is not None
    assert (outcome.status, outcome.problem.status, outcome.event) == (status, status, "error.coverage")
    assert not any(word in outcome.problem.detail for word in ("Traceback", "127.0.0.1", "acme"))


async def test_a_service_that_lacks_data_leaves_it_unknown(payer: Payer) -> None:
    payer.answers["cds-services/signing"] = (412, b"")
    assert read(await payer.check())["status"] == "unknown"
    payer.answers["cds-services/signing"] = (429, b"")
    assert (await payer.check()).status == 429


async def test_a_coverage_of_somebody_else_looks_like_one_that_does_not_exist(payer: Payer) -> None:
    for outcome in (
        await payer.check(patient="p2"),
        await payer.check(coverage="c9"),
        await payer.check(obligations=Obligations(compartment="p2")),
        await payer.check(patient="p2", obligations=Obligations(compartment="p2")),
    ):
        assert outcome.problem is not None
        assert (outcome.status, outcome.problem.detail, outcome.body) == (404, "Resource not found", b"")
        assert outcome.touched == ()
    assert "cds-services/signing" not in payer.paths
    payer.answers["Coverage/c1"] = (200, COVERAGE | {"beneficiary": {"display": "Castle"}})
    assert (await payer.check()).status == 404


async def test_a_patient_asks_about_the_own_coverage_only(payer: Payer) -> None:
    own = Obligations(compartment="p1")
    assert (await payer.check(obligations=own)).status == 200
    assert (await payer.package(obligations=own)).status == 200
    other = await payer.package(obligations=Obligations(compartment="p2"))
    assert other.status == 404


@pytest.mark.parametrize(
    ("operation", "coverage", "told"),
    [
        ("$check-prior-auth", "", {"patient_id": "p1", "procedure_code": "70551", "code_system": CPT}),
        ("$check-prior-auth", "..", {"patient_id": "p1", "procedure_code": "70551", "code_system": CPT}),
        ("$check-prior-auth", "c1", {"patient_id": "../x", "procedure_code": "70551", "code_system": CPT}),
        ("$check-prior-auth", "c1", {"patient_id": "p1", "procedure_code": "7 0", "code_system": CPT}),
        ("$check-prior-auth", "c1", {"patient_id": "p1"}),
        ("$check-prior-auth", "c1", b""),
        ("$check-prior-auth", "c1", b"\xff"),
        ("$questionnaire-package", "c1", {"questionnaire_url": "a b"}),
        ("$questionnaire-package", "c1", {"other": 1}),
        ("$coverage-rules", "", {"procedure_code": "70551", "code_system": "a\nb"}),
    ],
)
async def test_arguments_are_read_again_before_anything_is_sent(
    payer: Payer, operation: str, coverage: str, told: Any
) -> None:
    outcome = await payer.ask(operation, coverage, told)
    assert (outcome.status, outcome.event) == (400, "error.coverage")
    assert payer.paths == []


async def test_a_platform_without_these_services_is_not_asked_and_nothing_is_guessed(payer: Payer) -> None:
    payer.bench.describe()
    answer = read(await payer.check())
    assert answer["status"] == "unknown"
    assert answer["reason"] == "CRD endpoint not configured for this platform. Contact platform directly."
    assert not {"questionnaire_url", "documentation_required", "info_needed"} & set(answer)
    assert read(await payer.package()) == {"questionnaires": [], "value_sets": {}, "libraries": []}
    assert read(await payer.package({"raw_format": True}))["raw_bundle"]["entry"] == []
    rules = read(await payer.rules())
    assert (rules["rules"], rules["platform_id"], "last_updated" in rules) == ([], "probe", False)
    assert rules["markdown_summary"]
    assert payer.paths == []


async def test_the_calls_own_deadline_holds_for_the_whole_conversation(bench: Any, payer: Payer) -> None:
    async def slowly(seen: Any) -> web.Response:
        if "cds-services" in seen.path:
            await asyncio.sleep(5)
        return payer.respond(seen)

    bench.upstream.respond = slowly
    outcome = await payer.check(seconds=0.8)
    assert (outcome.status, outcome.event) == (504, "error.coverage")


def test_an_organisation_behind_a_vendor_keeps_only_services_at_its_own_base() -> None:
    vendor = Coverage(crd_url="https://crd.vendor.example", crd_service="s", dtr_url="base", rules_url="base")
    assert vendor.at_own_base() == Coverage(crd_service="s", dtr_url="base", rules_url="base")
    assert vendor.capabilities == ("crd", "dtr")


async def test_an_operation_of_ours_on_another_type_is_the_platforms_own(bench: Any) -> None:
    def made(kind: str, operation: str) -> Call:
        return bench.call("operation", kind, "x", operation=operation)

    assert concerns(made("Coverage", "$check-prior-auth"))
    assert not concerns(made("Coverage", "$validate"))
    assert not concerns(made("Questionnaire", "$questionnaire-package"))
