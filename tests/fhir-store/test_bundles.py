"""Batch and transaction."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from store_stage import Fhir, issue_of, observation, patient

SYSTEM = "http://hospital.example.org/mrn"
URN = "urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"
URN2 = "urn:uuid:1c3151bd-1cbf-4d64-b04d-cd9187a4c6e0"


def entry(
    method: str, url: str, resource: dict[str, Any] | None = None, full_url: str = "", **request: str
) -> dict[str, Any]:
    made: dict[str, Any] = {"request": {"method": method, "url": url, **request}}
    if resource:
        made["resource"] = resource
    if full_url:
        made["fullUrl"] = full_url
    return made


def send(fhir: Fhir, kind: str, *entries: dict[str, Any], **headers: str) -> httpx.Response:
    return fhir.post("", {"resourceType": "Bundle", "type": kind, "entry": list(entries)}, **headers)


def statuses(answer: httpx.Response) -> list[str]:
    return [one["response"]["status"][:3] for one in answer.json()["entry"]]


@pytest.mark.requirement("ST-22")
def test_batch_entries_do_not_know_of_one_another(fhir: Fhir, mark: str) -> None:
    answer = send(
        fhir,
        "batch",
        entry("POST", "Patient", patient(mark), URN),
        entry("POST", "Patient", {"resourceType": "Patient", "nonsense": 1}),
        entry("GET", f"Patient?family={mark}"),
        entry("DELETE", "Patient/never-there"),
        entry("POST", "Observation", observation(URN)),
        entry("GET", "Nothing/1"),
        entry("SING", "Patient"),
    )
    assert (answer.status_code, answer.json()["type"]) == (200, "batch-response")
    assert statuses(answer) == ["201", "422", "200", "204", "201", "404", "400"]
    entries = answer.json()["entry"]
    assert entries[1]["response"]["outcome"]["resourceType"] == "OperationOutcome"
    assert entries[2]["resource"]["total"] == 1
    stored = fhir.get(entries[4]["response"]["location"]).json()
    assert stored["subject"]["reference"] == URN, "a batch resolves no references between its entries"


@pytest.mark.requirement("ST-23")
@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (entry("POST", "Patient", {"resourceType": "Patient", "gender": "nonsense"}), 422),
        (entry("PUT", "Patient/a", patient("x") | {"id": "b"}), 400),
        (entry("GET", "Patient/never-there"), 404),
        (entry("PUT", "Patient/never-there", patient("x") | {"id": "never-there"}, ifMatch='W/"3"'), 412),
        (entry("POST", "Nothing", {"resourceType": "Nothing"}), 404),
        (entry("POST", "Observation", observation("Patient?identifier=urn:none|none")), 412),
    ],
)
def test_one_failing_entry_leaves_no_trace_of_a_transaction(
    fhir: Fhir, mark: str, bad: dict[str, Any], status: int
) -> None:
    known = fhir.create(patient(mark, active=True))["id"]
    before = fhir.get("_history?_count=0").json()["total"]
    answer = send(
        fhir,
        "transaction",
        entry("POST", "Patient", patient(mark)),
        entry("PUT", f"Patient/{mark}", patient(mark) | {"id": mark}),
        entry("DELETE", f"Patient/{known}"),
        bad,
    )
    assert answer.status_code == status, answer.text
    assert issue_of(answer)["expression"][0] == "Bundle.entry[3]"
    assert fhir.ids(f"Patient?family={mark}") == [known]
    assert fhir.get(f"Patient/{mark}").status_code == 404
    assert fhir.get("_history?_count=0").json()["total"] == before


@pytest.mark.requirement("ST-24")
def test_effects_are_ordered_and_answers_are_not(fhir: Fhir, mark: str) -> None:
    old = fhir.create(patient(mark, identifier=[{"system": SYSTEM, "value": mark}]))["id"]
    kept = fhir.create(patient(mark))["id"]
    answer = send(
        fhir,
        "transaction",
        entry("GET", f"Patient?family={mark}&_sort=_id"),
        entry("PUT", f"Patient/{kept}", patient(f"{mark}x") | {"id": kept}),
        entry("POST", "Patient", patient(mark), ifNoneExist=f"identifier={SYSTEM}|{mark}"),
        entry("DELETE", f"Patient/{old}"),
    )
    assert answer.status_code == 200, answer.text
    assert statuses(answer) == ["200", "200", "201", "204"], "the deleted match no longer counts"
    seen = answer.json()["entry"][0]["resource"]
    assert seen["total"] == 2, "reads see all writes: the updated and the new one"


@pytest.mark.requirement("ST-25")
def test_temporary_addresses_are_replaced_wherever_they_mean_something(fhir: Fhir, mark: str) -> None:
    narrative = f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{URN2}">{URN2}</a></div>'
    first = patient(
        mark,
        text={"status": "generated", "div": narrative},
        link=[{"other": {"reference": URN2}, "type": "seealso"}],
        identifier=[{"system": SYSTEM, "value": URN2}],
        extension=[{"url": "urn:x", "valueUri": URN2}, {"url": "urn:y", "valueString": URN2}],
    )
    second = patient(mark, link=[{"other": {"reference": URN}, "type": "seealso"}])
    answer = send(fhir, "transaction", entry("POST", "Patient", first, URN), entry("POST", "Patient", second, URN2))
    assert answer.status_code == 200, answer.text
    one, two = (fhir.get(e["response"]["location"]).json() for e in answer.json()["entry"])
    there = f"Patient/{two['id']}"
    assert one["link"][0]["other"]["reference"] == there
    assert two["link"][0]["other"]["reference"] == f"Patient/{one['id']}"
    assert f'href="{there}"' in one["text"]["div"]
    assert [e.get("valueUri") or e.get("valueString") for e in one["extension"]] == [there, URN2]
    assert one["identifier"][0]["value"] == URN2, "text keeps what it says"
    assert fhir.ids(f"Patient?link={there}") == [one["id"]]


@pytest.mark.requirement("ST-26")
def test_conditional_references_need_exactly_one_match(fhir: Fhir, mark: str) -> None:
    identity = fhir.create(patient(mark, identifier=[{"system": SYSTEM, "value": mark}]))["id"]
    reference = f"Patient?identifier={SYSTEM}|{mark}"
    answer = send(fhir, "transaction", entry("POST", "Observation", observation(reference)))
    assert answer.status_code == 200, answer.text
    stored = fhir.get(answer.json()["entry"][0]["response"]["location"]).json()
    assert stored["subject"]["reference"] == f"Patient/{identity}"
    fhir.create(patient(mark, identifier=[{"system": SYSTEM, "value": mark}]))
    assert send(fhir, "transaction", entry("POST", "Observation", observation(reference))).status_code == 412


@pytest.mark.requirement("ST-27")
def test_one_identity_twice_is_refused_and_conditional_matches_resolve_references(fhir: Fhir, mark: str) -> None:
    twice = entry("PUT", f"Patient/{mark}", patient(mark) | {"id": mark})
    assert send(fhir, "transaction", twice, twice).status_code == 400
    identity = fhir.create(patient(mark, identifier=[{"system": SYSTEM, "value": mark}]))["id"]
    answer = send(
        fhir,
        "transaction",
        entry("POST", "Observation", observation(URN)),
        entry("POST", "Patient", patient(mark), URN, ifNoneExist=f"identifier={SYSTEM}|{mark}"),
    )
    assert statuses(answer) == ["201", "200"]
    stored = fhir.get(answer.json()["entry"][0]["response"]["location"]).json()
    assert stored["subject"]["reference"] == f"Patient/{identity}"


@pytest.mark.requirement("ST-28")
def test_preconditions_work_per_entry_and_answers_tell_the_new_version(fhir: Fhir, mark: str) -> None:
    created = fhir.create(patient(mark))
    path = f"Patient/{created['id']}"
    operations = base64.b64encode(b'[{"op":"add","path":"/active","value":true}]').decode()
    binary = {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": operations}
    answer = send(
        fhir, "transaction", entry("PATCH", path, binary, ifMatch='W/"1"'), entry("GET", f"Patient?family={mark}")
    )
    assert answer.status_code == 200, answer.text
    first = answer.json()["entry"][0]["response"]
    assert first["etag"] == 'W/"2"'
    assert first["location"] == f"{fhir.base}/{path}/_history/2"
    assert first["lastModified"]
    nested = answer.json()["entry"][1]["resource"]
    assert (nested["type"], nested["entry"][0]["resource"]["active"]) == ("searchset", True)
    body = patient(mark) | {"id": created["id"]}
    assert send(fhir, "transaction", entry("PUT", path, body, ifMatch='W/"1"')).status_code == 412
    cached = send(fhir, "transaction", entry("GET", path, ifNoneMatch='W/"2"'))
    assert statuses(cached) == ["304"]
    known = fhir.get(path).headers["last-modified"]
    assert statuses(send(fhir, "transaction", entry("GET", path, ifModifiedSince=known))) == ["304"]
    asked = send(fhir, "transaction", entry("PUT", path, body), Prefer="return=representation")
    assert asked.json()["entry"][0]["resource"]["id"] == created["id"]


@pytest.mark.requirement("ST-29")
def test_other_bundles_at_the_base_are_refused_and_collections_are_resources(fhir: Fhir) -> None:
    for kind in ("collection", "searchset", "history", "document"):
        refused = send(fhir, kind, {"resource": patient("x")})
        assert refused.status_code == 400
        issue_of(refused)
    assert fhir.post("", patient("x")).status_code == 400
    assert fhir.post("", {"resourceType": "Bundle", "type": "batch", "entry": 5}).status_code == 400
    stored = fhir.post(
        "Bundle", {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": patient("x")}]}
    )
    assert stored.status_code == 201
    many = [entry("GET", "Patient/1")] * 20_001
    crowded = send(fhir, "batch", *many)
    assert crowded.status_code == 413
    assert issue_of(crowded)["code"] == "too-costly"


def test_an_empty_bundle_is_answered_in_its_kind(fhir: Fhir) -> None:
    for kind in ("batch", "transaction"):
        answer = fhir.post("", {"resourceType": "Bundle", "type": kind})
        assert (answer.status_code, answer.json()) == (200, {"resourceType": "Bundle", "type": f"{kind}-response"})
