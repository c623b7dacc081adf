"""The REST face: FG-4 to FG-9, and the defects of the X list that it must not have."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.rest_stage import BASE, PATIENT, READER, WRITER, FakeDelivery, Stage, ok, outcome_body, refused
from wardmesh_common.contracts import Reply
from wardmesh_common.errors import AuditUnavailable, TimedOut, Unavailable
from wardmesh_common.vocabulary import Face, Interaction

pytestmark = pytest.mark.anyio

STATEMENT = {
    "resourceType": "CapabilityStatement",
    "fhirVersion": "4.0.1",
    "status": "active",
    "publisher": "ACME",
    "software": {"name": "Server", "version": "2"},
    "rest": [
        {
            "resource": [
                {
                    "type": "Patient",
                    "interaction": [{"code": "read"}, {"code": "search-type"}],
                    "searchParam": [{"name": f"p{n}", "type": "string"} for n in range(12)],
                    "operation": [{"name": "everything"}],
                },
                {"type": "Observation"},
            ]
        }
    ],
}


async def test_a_read_becomes_one_call_with_the_platform_answer_untouched() -> None:
    stage = Stage()
    stage.bus.reply = ok(PATIENT, etag='W/"3"', last_modified="Mon, 01 Jan 2024 00:00:00 GMT", server="inside")
    answer = await stage.get("/api/fhir/store/Patient/p1")
    assert (answer.status_code, answer.content) == (200, PATIENT)
    assert answer.headers["etag"] == 'W/"3"'
    assert "server" not in answer.headers
    call = stage.bus.call
    assert (call.face, call.interaction, call.platform) == (Face.REST, Interaction.READ, "store")
    assert (call.resource.type, call.resource.id) == ("Patient", "p1")
    assert call.base_url == f"{BASE}/api/fhir/store"
    assert call.caller.bearer == "doctor:fhir.read"


async def test_repeated_parameters_reach_the_call_complete_and_in_order() -> None:
    stage = Stage()
    query = "date=ge2020-01-01&date=le2020-12-31&code=http://loinc.org%7C8867-4&_include=a&_include=b"
    await stage.get(f"/api/fhir/store/Observation?{query}")
    assert stage.bus.call.query == query


@pytest.mark.requirement("FG-6")
@pytest.mark.parametrize(
    ("operation", "status"),
    [("$everything", 200), ("$collect-data", 200), ("$export", 400), ("everything", 400), ("_history", 400)],
)
async def test_only_the_allowed_operations_run(operation: str, status: int) -> None:
    stage = Stage()
    answer = await stage.get(f"/api/fhir/store/Patient/p1/{operation}?start=2020&start=2021")
    assert answer.status_code == status
    assert len(stage.bus.calls) == (1 if status == 200 else 0)
    if status == 200:
        assert (stage.bus.call.operation, stage.bus.call.query) == (operation, "start=2020&start=2021")


@pytest.mark.requirement("FG-4")
async def test_metadata_is_a_summary_or_the_details_of_one_type_or_a_warning() -> None:
    stage = Stage()
    stage.bus.reply = ok(json.dumps(STATEMENT).encode())
    summary = (await stage.get("/api/fhir/store/metadata")).json()
    assert summary.keys() == {
        "resourceType", "fhirVersion", "status", "publisher", "software", "resourceCount", "resources", "note"
    }  # fmt: skip
    first = summary["resources"][0]
    assert (summary["resourceCount"], first["type"], first["searchParamCount"]) == (2, "Patient", 12)
    assert (first["interactions"], len(first["searchParams"])) == (["read", "search-type"], 10)
    details = (await stage.get("/api/fhir/store/metadata?resource_type=Patient")).json()
    assert details.keys() == {"resourceType", "resource", "searchParam", "operation", "interaction"}
    assert (details["resource"], len(details["searchParam"])) == ("Patient", 12)
    missing = (await stage.get("/api/fhir/store/metadata?resource_type=Account")).json()
    assert missing["resourceType"] == "OperationOutcome"
    assert (missing["issue"][0]["severity"], missing["issue"][0]["code"]) == ("warning", "not-found")


async def test_a_create_asks_for_the_stored_resource_and_relays_status_and_location() -> None:
    stage = Stage()
    location = f"{BASE}/fhir/store/Patient/p1/_history/1"
    stage.bus.reply = ok(PATIENT, 201, etag='W/"1"', location=location)
    body = b'{"resourceType":"Patient","weight":1.00}'
    headers = {**WRITER, "content-type": "application/fhir+json", "if-none-exist": "identifier=a|b"}
    answer = await stage.send("POST", "/api/fhir/store/Patient", headers=headers, content=body)
    assert (answer.status_code, answer.content, answer.headers["location"]) == (201, PATIENT, location)
    assert stage.bus.bodies == [body]
    assert stage.bus.call.headers == {"if-none-exist": "identifier=a|b", "prefer": "return=representation"}
    assert stage.bus.call.base_url == f"{BASE}/fhir/store"


@pytest.mark.requirement("FG-7")
async def test_an_update_fills_a_missing_id_and_keeps_every_digit() -> None:
    stage = Stage()
    body = b'{"resourceType":"Patient","x":{"valueDecimal":1.00,"big":100000000000000000000.5}}'
    headers = {**WRITER, "content-type": "application/json", "if-match": 'W/"1"'}
    await stage.send("PUT", "/api/fhir/store/Patient/p1", headers=headers, content=body)
    sent = stage.bus.bodies[0]
    assert sent is not None
    assert b'{"valueDecimal":1.00,"big":100000000000000000000.5}' in sent
    assert json.loads(sent)["id"] == "p1"
    assert stage.bus.call.headers["if-match"] == 'W/"1"'
    wrong = b'{"resourceType":"Observation"}'
    answer = await stage.send("PUT", "/api/fhir/store/Patient/p1", headers=headers, content=wrong)
    text = "Resource type mismatch: URL says 'Patient' but resource has 'Observation'"
    assert (answer.status_code, answer.json()) == (400, {"detail": text})
    other = b'{"resourceType":"Patient","id":"p2"}'
    answer = await stage.send("PUT", "/api/fhir/store/Patient/p1", headers=headers, content=other)
    text = "Resource ID mismatch: URL says 'p1' but resource has 'p2'"
    assert (answer.status_code, answer.json()) == (400, {"detail": text})
    answer = await stage.send("DELETE", "/api/fhir/store/Patient/p1", headers=WRITER)
    assert answer.json() == {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "information", "code": "deleted", "diagnostics": "Successfully deleted Patient/p1"}],
    }
    assert len(stage.bus.calls) == 2


@pytest.mark.requirement("FG-8")
@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/api/fhir/nowhere/patient", "Invalid resource type 'patient'. "),
        ("/api/fhir/nowhere/Patient1", "Invalid resource type 'Patient1'. "),
        ("/api/fhir/nowhere/Patient/a_b", "Invalid resource_id: "),
        (f"/api/fhir/nowhere/Patient/{'x' * 65}", "Invalid resource_id: "),
        ("/api/fhir/No_Where/Patient", "Invalid platform_id"),
        ("/api/fhir/nowhere/Patient/p1/$export", "Invalid operation"),
    ],
)
async def test_the_form_is_checked_before_the_platform_is_looked_up_or_a_credential_wanted(
    path: str, text: str
) -> None:
    stage = Stage()
    answer = await stage.get(path, headers={"x": "no credential"})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(text)
    assert stage.bus.calls == []


async def test_an_unknown_platform_is_404_before_any_credential() -> None:
    stage = Stage()
    answer = await stage.get("/api/fhir/nowhere/Patient/p1", headers={"x": "y"})
    text = "Platform 'nowhere' is not registered. Available platforms can be found at /api/platforms"
    assert (answer.status_code, answer.json()) == (404, {"detail": text})


async def test_a_platform_without_a_base_is_503_and_one_with_a_stand_in_is_served_by_it() -> None:
    stage = Stage()
    answer = await stage.get("/api/fhir/bare/Patient/p1")
    assert answer.status_code == 503
    assert answer.json()["detail"].startswith("Platform 'bare' does not have a FHIR endpoint configured. ")
    answer = await stage.get("/api/fhir/epic/Patient/p1")
    assert (stage.bus.call.platform, answer.headers["x-wardmesh-platform"]) == ("store", "store")


FAILURES: list[tuple[Any, int, str]] = [
    (refused(404, "not_found", "x", outcome_body("gone from http://inside")), 404, "Resource not found"),
    (refused(422, "operation_outcome", "x", outcome_body("bad value")), 422, "bad value"),
    (Reply(call_id="", status=400, body=outcome_body("bad parameter")), 422, "bad parameter"),
    (refused(403, "forbidden", "Nurses may not read Claim."), 403, "Nurses may not read Claim."),
    (refused(403, "insufficient_scope", "patient/Claim.rs is needed"), 403, "Insufficient scope: "),
    (refused(502, "upstream_unavailable", "The platform failed to answer."), 502, "The platform failed"),
    (refused(503, "upstream_unavailable", "The platform cannot be reached."), 503, "The platform cannot"),
    (refused(504, "timeout", "The platform did not answer in time."), 504, "The platform did not"),
    (refused(500, "internal_error", "whatever"), 500, "FHIR operation failed: Internal"),
    (refused(410, "deleted", "The resource was deleted."), 410, "The resource was deleted."),
    (Unavailable("No instance of auth is up."), 503, "No instance of auth is up."),
    (TimedOut("The mesh did not answer in time."), 504, "The mesh did not answer in time."),
    (AuditUnavailable("The audit record could not be written."), 503, "The audit record"),
]


@pytest.mark.parametrize(("reply", "status", "text"), FAILURES)
async def test_every_failure_has_its_status_and_one_detail(reply: Any, status: int, text: str) -> None:
    stage = Stage()
    stage.bus.reply = reply
    answer = await stage.get("/api/fhir/store/Patient/p1")
    assert answer.status_code == status
    assert answer.json().keys() == {"detail"}
    assert answer.json()["detail"].startswith(text)


@pytest.mark.parametrize("path", ["/api/fhir/store/Patient/p1", "/fhir/store/Patient/p1"])
async def test_a_refusal_names_the_id_under_which_the_ledger_knows_it(path: str) -> None:
    stage = Stage()
    stage.bus.reply = Unavailable("No instance of auth is up.")
    answer = await stage.get(path)
    assert answer.headers["x-request-id"] == stage.bus.calls[0].id
    stage.bus.reply = refused(403, "forbidden", "no")
    stage.bus.reply.call_id = "c1"
    assert (await stage.get(path)).headers["x-request-id"] == "c1"
    assert "x-request-id" not in (await stage.get("/api/fhir/nowhere/Patient/p1")).headers


async def test_a_bug_of_ours_is_500_without_a_word_from_inside(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()

    async def bug(_call: Any) -> FakeDelivery:
        raise KeyError("secret-internal-name")

    stage.bus.reply = bug
    answer = await stage.get("/api/fhir/store/Patient/p1")
    assert (answer.status_code, answer.json()) == (500, {"detail": "FHIR operation failed: Internal"})
    assert "unexpected failure" in caplog.text


async def test_a_large_answer_is_streamed_with_its_length() -> None:
    stage = Stage()
    parts = (b"x" * 1000, b"y" * 500)
    reply = Reply(call_id="", status=200, media_type="application/fhir+json", chunked_bytes=1500, credit_to="i")
    stage.bus.reply = FakeDelivery(reply, parts)
    answer = await stage.get("/api/fhir/store/Patient?name=a")
    assert (answer.content, answer.headers["content-length"]) == (b"".join(parts), "1500")


@pytest.mark.parametrize(
    ("query", "accept", "status"),
    [
        ("_format=json&a=1", "application/xml", 200),
        ("_format=application/fhir+json&a=1", "*/*", 200),
        ("_format=application%2Fjson%2Bfhir&a=1", "*/*", 200),
        ("_format=xml&a=1", "application/json", 406),
        ("%5Fformat=xml&a=1", "*/*", 406),
        ("a=1", "application/fhir+xml", 406),
        ("a=1", "text/html;q=1, application/json;q=0", 406),
        ("a=1", "application/json+fhir", 200),
    ],
)
async def test_format_wins_over_accept_and_only_json_is_offered(query: str, accept: str, status: int) -> None:
    stage = Stage()
    answer = await stage.get(f"/api/fhir/store/Patient?{query}", headers={**READER, "accept": accept})
    assert answer.status_code == status
    if status == 200:
        assert stage.bus.call.query == "a=1"


async def test_head_answers_like_get_without_the_body() -> None:
    stage = Stage()
    answer = await stage.send("HEAD", "/api/fhir/store/Patient/p1", headers=READER)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(PATIENT))


async def test_a_304_has_an_etag_and_no_body() -> None:
    stage = Stage()
    stage.bus.reply = ok(b"", 304, etag='W/"3"')
    answer = await stage.get("/api/fhir/store/Patient/p1", headers={**READER, "if-none-match": 'W/"3"'})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", 'W/"3"')
    assert stage.bus.call.headers["if-none-match"] == 'W/"3"'


@pytest.mark.parametrize("method", ["PATCH", "TRACE", "POST"])
async def test_methods_that_rest_does_not_offer_are_405(method: str) -> None:
    stage = Stage()
    answer = await stage.send(method, "/api/fhir/store/Patient/p1", headers=WRITER)
    assert answer.status_code == 405


async def test_broken_json_and_foreign_media_types_are_refused_without_quoting_them() -> None:
    stage = Stage()
    headers = {**WRITER, "content-type": "application/fhir+json"}
    for body in (b'{"resourceType":"Patient","name":"CANARY"', b"[" * 100_000, b"CANARY", b'"CANARY"', b""):
        answer = await stage.send("POST", "/api/fhir/store/Patient", headers=headers, content=body)
        assert answer.status_code == 400
        assert "CANARY" not in answer.text
    headers["content-type"] = "application/xml"
    answer = await stage.send("POST", "/api/fhir/store/Patient", headers=headers, content=b"<Patient/>")
    assert answer.status_code == 415
    assert stage.bus.calls == []


async def test_more_calls_than_one_replica_may_hold_are_told_so_at_once_and_recorded() -> None:
    stage = Stage(max_in_flight=1)
    enough = asyncio.Event()

    async def slow(_call: Any) -> FakeDelivery:
        await enough.wait()
        return FakeDelivery(ok(PATIENT))

    stage.bus.reply = slow
    first = asyncio.create_task(stage.get("/api/fhir/store/Patient/p1"))
    async with asyncio.timeout(30):
        while not stage.bus.calls:
            await asyncio.sleep(0)
    second = await stage.get("/api/fhir/store/Patient/p1")
    assert (second.status_code, second.headers["retry-after"]) == (503, "1")
    assert [outcome.problem.code for _, outcome in stage.bus.recorded if outcome.problem] == ["busy"]
    enough.set()
    assert (await first).status_code == 200
    assert (await stage.get("/api/fhir/store/Patient/p1")).status_code == 200


async def test_a_call_without_a_trace_gets_one_and_a_broken_trace_is_replaced() -> None:
    stage = Stage()
    for given in ({}, {"traceparent": "00-zz-CANARY"}):
        await stage.get("/api/fhir/store/Patient/p1", {**READER, **given})
    for call in stage.bus.calls:
        assert call.traceparent == f"00-{call.id}-{call.id[:16]}-01"
