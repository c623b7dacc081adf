"""The FHIR face: every interaction of an ordinary FHIR client, its headers, its errors as OperationOutcome."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.rest_stage import BASE, PATIENT, READER, WRITER, Stage, ok, outcome_body, refused
from wardmesh_common.contracts import Entry, Reply
from wardmesh_common.errors import Unavailable
from wardmesh_common.vocabulary import Face, Interaction

pytestmark = pytest.mark.anyio

On = Interaction  # short, for the tables
INTERACTIONS: list[tuple[str, str, tuple[Any, ...]]] = [
    ("GET", "/metadata", (On.CAPABILITIES, "", "", "", "")),
    ("GET", "?_type=Patient", (On.SEARCH, "", "", "", "")),
    ("GET", "/_history?_count=1", (On.HISTORY, "", "", "", "")),
    ("GET", "/Patient?name=a", (On.SEARCH, "Patient", "", "", "")),
    ("GET", "/Patient/_history", (On.HISTORY, "Patient", "", "", "")),
    ("GET", "/Patient/p1", (On.READ, "Patient", "p1", "", "")),
    ("HEAD", "/Patient/p1", (On.READ, "Patient", "p1", "", "")),
    ("GET", "/Patient/p1/_history", (On.HISTORY, "Patient", "p1", "", "")),
    ("GET", "/Patient/p1/_history/3", (On.VREAD, "Patient", "p1", "3", "")),
    ("GET", "/Patient/p1/$everything", (On.OPERATION, "Patient", "p1", "", "$everything")),
    ("GET", "/ValueSet/$expand?url=x", (On.OPERATION, "ValueSet", "", "", "$expand")),
    ("GET", "/Patient/p1/Observation?code=a", (On.SEARCH, "Patient", "p1", "", "Observation")),
    ("GET", "/Patient/p1/*", (On.SEARCH, "Patient", "p1", "", "*")),
    ("DELETE", "/Patient/p1", (On.DELETE, "Patient", "p1", "", "")),
    ("DELETE", "/Patient?identifier=a", (On.DELETE, "Patient", "", "", "")),
]


@pytest.mark.parametrize(("method", "path", "expected"), INTERACTIONS)
async def test_method_and_path_say_which_interaction_it_is(method: str, path: str, expected: tuple[Any, ...]) -> None:
    stage = Stage()
    answer = await stage.send(method, f"/fhir/store{path}", headers=WRITER)
    assert answer.status_code == 200
    call = stage.bus.call
    assert (call.interaction, call.resource.type, call.resource.id, call.resource.version, call.operation) == expected
    assert call.query == path.partition("?")[2]
    assert (call.face, call.base_url) == (Face.FHIR, f"{BASE}/fhir/store")


@pytest.mark.parametrize(
    ("method", "path", "media_type", "body", "interaction"),
    [
        ("POST", "/Patient", "application/fhir+json", PATIENT, On.CREATE),
        ("PUT", "/Patient/p1", "application/json; charset=utf-8", PATIENT, On.UPDATE),
        ("PUT", "/Patient?identifier=a", "application/fhir+json", PATIENT, On.UPDATE),
        ("PATCH", "/Patient/p1", "application/json-patch+json", b'[{"op":"remove","path":"/x"}]', On.PATCH),
        ("PATCH", "/Patient/p1", "application/fhir+json", b'{"resourceType":"Parameters"}', On.PATCH),
        ("PATCH", "/Patient?identifier=a", "application/json-patch+json", b"[]", On.PATCH),
        ("POST", "/Patient/$validate", "application/fhir+json", b'{"resourceType":"Parameters"}', On.OPERATION),
        ("POST", "/Binary", "image/png", b"\x89PNG", On.CREATE),
    ],
)
async def test_bodies_pass_byte_for_byte_with_their_media_type(
    method: str, path: str, media_type: str, body: bytes, interaction: Interaction
) -> None:
    stage = Stage()
    headers = {**WRITER, "content-type": media_type, "prefer": "return=minimal", "if-match": 'W/"2"'}
    answer = await stage.send(method, f"/fhir/store{path}", headers=headers, content=body)
    assert answer.status_code == 200
    assert (stage.bus.call.interaction, stage.bus.bodies) == (interaction, [body])
    sent = media_type.partition(";")[0]
    assert stage.bus.call.media_type == ("application/fhir+json" if sent == "application/json" else sent)
    assert stage.bus.call.headers == {"prefer": "return=minimal", "if-match": 'W/"2"'}


async def test_a_form_search_is_seen_by_policy_like_any_other() -> None:
    stage = Stage()
    headers = {**READER, "content-type": "application/x-www-form-urlencoded"}
    form = b"date=ge2020&date=le2021&_format=json&name=a+b%7Cc"
    await stage.send("POST", "/fhir/store/Patient/_search?_count=3", headers=headers, content=form)
    assert stage.bus.call.interaction is Interaction.SEARCH
    assert stage.bus.call.query == "_count=3&date=ge2020&date=le2021&name=a+b%7Cc"
    assert stage.bus.bodies == [None]
    answer = await stage.send("POST", "/fhir/store/Patient/_search", headers=headers, content="näme=1".encode())
    assert answer.status_code == 400
    headers["content-type"] = "application/json"
    answer = await stage.send("POST", "/fhir/store/Patient/_search", headers=headers, content=b"{}")
    assert answer.status_code == 415


def bundle(*entries: dict[str, Any], kind: str = "transaction") -> bytes:
    return json.dumps({"resourceType": "Bundle", "type": kind, "entry": list(entries)}).encode()


def entry(method: str, url: str, resource: dict[str, Any] | None = None, **request: str) -> dict[str, Any]:
    made: dict[str, Any] = {"request": {"method": method, "url": url, **request}}
    return made if resource is None else {**made, "resource": resource}


PERSON = {"resourceType": "Patient"}


@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_every_entry_of_a_bundle_is_shown_to_policy(kind: str) -> None:
    stage = Stage()
    body = bundle(
        entry("GET", "Patient/1?_elements=name"),
        entry("POST", "Patient", PERSON, ifNoneExist="identifier=a"),
        entry("PUT", "Patient/2", {**PERSON, "id": "2"}),
        entry("PUT", "Patient?identifier=b", PERSON),
        entry("DELETE", "Observation/3"),
        kind=kind,
    )
    headers = {**WRITER, "content-type": "application/fhir+json"}
    answer = await stage.send("POST", "/fhir/store", headers=headers, content=body)
    assert answer.status_code == 200
    call = stage.bus.call
    assert (str(call.interaction), call.tool, stage.bus.bodies) == (kind, kind, [body])
    assert call.entries == (
        Entry(method="GET", url="Patient/1?_elements=name"),
        Entry(method="POST", url="Patient", if_none_exist="identifier=a"),
        Entry(method="PUT", url="Patient/2"),
        Entry(method="PUT", url="Patient?identifier=b"),
        Entry(method="DELETE", url="Observation/3"),
    )


@pytest.mark.parametrize(
    "body",
    [
        bundle(entry("POST", "Observation", PERSON)),
        bundle(entry("PUT", "Patient/1", {**PERSON, "id": "2"})),
        bundle(entry("GET", "http://inside/Patient/1")),
        bundle(entry("GET", "//inside/Patient/1")),
        bundle(entry("GET", "Patient/../../metadata")),
        bundle(entry("TRACE", "Patient/1")),
        bundle({"resource": PERSON}),
        bundle(kind="searchset"),
        b'{"resourceType":"Patient"}',
        b'{"resourceType":"Bundle","type":"batch","type":"transaction"}',
        b'{"resourceType":"Bundle","type":"batch","entry":[{"request":{"method":"GET","method":"PUT","url":"Patient/1"}}]}',
        b"{",
    ],
)
async def test_a_bundle_that_policy_could_misread_is_refused_as_a_whole(body: bytes) -> None:
    stage = Stage()
    headers = {**WRITER, "content-type": "application/fhir+json"}
    answer = await stage.send("POST", "/fhir/store", headers=headers, content=body)
    assert answer.status_code == 400
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert stage.bus.calls == []


ERRORS: list[tuple[str, str, Any, int, str]] = [
    ("GET", "/fhir/nowhere/Patient/p1", None, 404, "not-found"),
    ("GET", "/fhir/bare/Patient/p1", None, 503, "transient"),
    ("GET", "/fhir/store/patient/p1", None, 400, "invalid"),
    ("GET", "/fhir/store/Patient/p1/x/y/z", None, 404, "not-found"),
    ("PUT", "/fhir/store/Patient", None, 400, "invalid"),
    ("PUT", "/fhir/store/metadata", None, 405, "not-supported"),
    ("GET", "/fhir/store/$closure", None, 405, "not-supported"),
    ("GET", "/fhir/store/Patient/p1?_format=xml", None, 406, "not-supported"),
    ("GET", "/fhir/store/Patient/p1", refused(403, "forbidden", "no", issue="forbidden"), 403, "forbidden"),
    ("GET", "/fhir/store/Patient/p1", Unavailable("away"), 503, "transient"),
    ("GET", "/fhir/store/Patient/p1", Reply(call_id="", status=410), 410, "deleted"),
]


@pytest.mark.parametrize(("method", "path", "reply", "status", "code"), ERRORS)
async def test_an_error_of_ours_is_an_operation_outcome(
    method: str, path: str, reply: Any, status: int, code: str
) -> None:
    stage = Stage()
    stage.bus.reply = reply or ok(PATIENT)
    answer = await stage.send(method, path, headers=WRITER)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/fhir+json")
    body = answer.json()
    assert (body["resourceType"], body["issue"][0]["code"]) == ("OperationOutcome", code)


async def test_an_outcome_of_the_platform_is_relayed_as_it_is() -> None:
    stage = Stage()
    body = outcome_body("Unknown search parameter", "not-supported")
    stage.bus.reply = refused(422, "operation_outcome", "x", body)
    stage.bus.reply.status = 400
    answer = await stage.get("/fhir/store/Patient?zzz=1")
    assert (answer.status_code, answer.content) == (400, body)


async def test_exactly_the_header_sets_of_the_contract_pass_in_both_directions() -> None:
    stage = Stage()
    wanted = {
        "if-none-match": 'W/"1"',
        "if-modified-since": "Mon, 01 Jan 2024 00:00:00 GMT",
        "prefer": "handling=strict",
    }
    noise = {"cookie": "a=b", "x-forwarded-host": "evil", "connection": "keep-alive", "x-custom": "1"}
    passed = {
        "etag": 'W/"1"', "last-modified": "x", "location": "l", "content-location": "c", "retry-after": "3",
        "x-progress": "50%", "expires": "e", "vary": "Accept",
    }  # fmt: skip
    reply = ok(PATIENT)
    reply.headers = {**passed, "server": "inside", "set-cookie": "s", "authorization": "t", "x-wardmesh-station": "p"}
    stage.bus.reply = reply
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = await stage.get("/fhir/store/Patient/p1", headers={**READER, **wanted, **noise, "traceparent": trace})
    assert stage.bus.call.headers == wanted
    assert stage.bus.call.traceparent == trace
    ours = {"content-type", "content-length", "x-content-type-options", "x-frame-options"}
    ours |= {"referrer-policy", "x-wardmesh-platform", "x-request-id"}
    assert set(answer.headers) == set(passed) | ours


async def test_binary_content_may_be_asked_for_in_its_own_format() -> None:
    stage = Stage()
    stage.bus.reply = Reply(call_id="", status=200, body=b"\x89PNG", media_type="image/png")
    asked = {**READER, "accept": "image/png", "accept-encoding": "br, gzip"}
    answer = await stage.get("/fhir/store/Binary/b1", headers=asked)
    assert (answer.content, answer.headers["content-type"]) == (b"\x89PNG", "image/png")
    assert stage.bus.call.headers == {"accept": "image/png", "accept-encoding": "gzip"}


async def test_a_page_link_comes_back_as_the_search_it_belongs_to() -> None:
    stage = Stage()
    await stage.get("/fhir/store/Patient?_cursor=abc")
    assert (stage.bus.call.interaction, stage.bus.call.query) == (Interaction.SEARCH, "_cursor=abc")
