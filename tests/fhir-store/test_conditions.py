"""Preconditions, conditional interactions and races."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import pytest
from store_stage import FHIR_JSON, Fhir, issue_of, patient

SYSTEM = "http://hospital.example.org/mrn"


def identified(value: str, family: str = "Cond") -> dict[str, object]:
    return patient(family, identifier=[{"system": SYSTEM, "value": value}])


@pytest.mark.requirement("ST-11")
def test_if_match_guards_put_patch_and_delete(fhir: Fhir) -> None:
    identity = fhir.create(patient("Match"))["id"]
    path, body = f"Patient/{identity}", patient("Match") | {"id": identity}
    assert fhir.put(path, body, If_Match='W/"1"').status_code == 200
    patch = '[{"op":"add","path":"/active","value":true}]'
    for stale in (
        fhir.put(path, body, If_Match='W/"1"'),
        fhir.call("PATCH", path, patch, If_Match='W/"1"', Content_Type="application/json-patch+json"),
        fhir.call("DELETE", path, If_Match='W/"1"'),
        fhir.put("Patient/not-there-yet", body | {"id": "not-there-yet"}, If_Match='W/"1"'),
    ):
        assert stale.status_code == 412
        issue_of(stale)
    assert fhir.put(path, body, If_Match="two").status_code == 400
    assert fhir.get(path).headers["etag"] == 'W/"2"', "nothing was changed"
    assert fhir.call("DELETE", path, If_Match='W/"2"').status_code == 204


@pytest.mark.requirement("ST-12")
def test_not_modified_is_answered_without_a_body(fhir: Fhir) -> None:
    created = fhir.post("Patient", patient("Cache"))
    path = f"Patient/{created.json()['id']}"
    for headers in (
        {"If_None_Match": 'W/"1"'},
        {"If_None_Match": '"9", W/"1"'},
        {"If_Modified_Since": created.headers["last-modified"]},
    ):
        answer = fhir.get(path, **headers)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", 'W/"1"')
    assert fhir.get(path, If_None_Match='W/"2"').status_code == 200
    assert fhir.get(path, If_Modified_Since="Mon, 01 Jan 2001 00:00:00 GMT").status_code == 200
    body = patient("Cache") | {"id": created.json()["id"]}
    assert fhir.put(path, body, If_None_Match="*").status_code == 412
    assert fhir.put(f"Patient/{body['id']}x", body | {"id": f"{body['id']}x"}, If_None_Match="*").status_code == 201


@pytest.mark.requirement("ST-13")
def test_conditional_create_makes_one_and_only_one(fhir: Fhir, mark: str) -> None:
    criteria = f"identifier={SYSTEM}|{mark}"
    first = fhir.post("Patient", identified(mark), If_None_Exist=criteria)
    second = fhir.post("Patient", identified(mark, "Changed"), If_None_Exist=criteria)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.headers["location"] == second.headers["location"]
    assert second.json()["name"][0]["family"] == "Cond"
    fhir.create(identified(mark))
    several = fhir.post("Patient", identified(mark), If_None_Exist=criteria)
    assert several.status_code == 412
    assert issue_of(several)["code"] == "multiple-matches"


@pytest.mark.requirement("ST-14")
def test_conditional_update_by_the_number_of_matches(fhir: Fhir, mark: str) -> None:
    path = f"Patient?identifier={SYSTEM}|{mark}"
    created = fhir.put(path, identified(mark))
    assert created.status_code == 201
    identity = created.json()["id"]
    assert fhir.put(path, identified(mark, "B")).status_code == 200
    assert fhir.put(path, identified(mark, "C") | {"id": identity}).json()["meta"]["versionId"] == "3"
    assert fhir.put(path, identified(mark, "D") | {"id": "another"}).status_code == 400
    chosen = fhir.put(f"Patient?identifier={SYSTEM}|{mark}-2", identified(f"{mark}-2") | {"id": f"{mark}-id"})
    assert (chosen.status_code, chosen.json()["id"]) == (201, f"{mark}-id")
    fhir.create(identified(mark))
    assert fhir.put(path, identified(mark)).status_code == 412


@pytest.mark.requirement("ST-15", "ST-16")
def test_conditional_patch_and_delete_by_the_number_of_matches(fhir: Fhir, mark: str) -> None:
    path = f"Patient?identifier={SYSTEM}|{mark}"
    patch = '[{"op":"add","path":"/active","value":true}]'
    kind = "application/json-patch+json"
    assert fhir.call("PATCH", path, patch, Content_Type=kind).status_code == 404
    assert fhir.call("DELETE", path).status_code == 204
    identity = fhir.create(identified(mark))["id"]
    assert fhir.call("PATCH", path, patch, Content_Type=kind).json()["active"] is True
    other = fhir.create(identified(mark))["id"]
    assert fhir.call("PATCH", path, patch, Content_Type=kind).status_code == 412
    assert fhir.call("DELETE", path).status_code == 412
    fhir.call("DELETE", f"Patient/{other}")
    assert fhir.call("DELETE", path).status_code == 204
    assert fhir.get(f"Patient/{identity}").status_code == 410
    declared = fhir.get("metadata").json()["rest"][0]["resource"][0]
    assert declared["conditionalDelete"] == "single"


@pytest.mark.requirement("ST-17")
@pytest.mark.parametrize("criteria", ["", "nonsense=1", "_count=1", "identifier=", "_include=Patient:organization"])
def test_criteria_that_select_nothing_certain_are_refused(fhir: Fhir, mark: str, criteria: str) -> None:
    before = fhir.create(patient(mark))["id"]
    assert fhir.call("DELETE", f"Patient?{criteria}").status_code == 400
    assert fhir.put(f"Patient?{criteria}", patient("x")).status_code == 400
    if criteria:
        assert fhir.post("Patient", patient("x"), If_None_Exist=criteria).status_code == 400
    assert fhir.get(f"Patient/{before}").status_code == 200


async def _together(base: str, count: int, **request: object) -> Counter[int]:
    """The same request many times at once."""
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(timeout=60, limits=limits, headers={"Content-Type": FHIR_JSON}) as client:
        answers = await asyncio.gather(*(client.request(**request) for _ in range(count)))  # type: ignore[arg-type]
    return Counter(answer.status_code for answer in answers)


@pytest.mark.requirement("ST-18")
def test_of_twenty_updates_with_one_if_match_exactly_one_wins(fhir: Fhir) -> None:
    identity = fhir.create(patient("Race"))["id"]
    request = {
        "method": "PUT",
        "url": fhir.url(f"Patient/{identity}"),
        "json": patient("Winner") | {"id": identity},
        "headers": {"If-Match": 'W/"1"'},
    }
    assert asyncio.run(_together(fhir.base, 20, **request)) == {200: 1, 412: 19}
    assert fhir.get(f"Patient/{identity}/_history").json()["total"] == 2


@pytest.mark.requirement("ST-18")
def test_of_twenty_conditional_creates_exactly_one_makes_a_resource(fhir: Fhir, mark: str) -> None:
    request = {
        "method": "POST",
        "url": fhir.url("Patient"),
        "json": identified(mark),
        "headers": {"If-None-Exist": f"identifier={SYSTEM}|{mark}"},
    }
    assert asyncio.run(_together(fhir.base, 20, **request)) == {201: 1, 200: 19}
    assert len(fhir.ids(f"Patient?identifier={SYSTEM}|{mark}")) == 1


@pytest.mark.requirement("ST-18")
def test_racing_updates_that_create_one_id_make_one_resource_with_every_version(fhir: Fhir, mark: str) -> None:
    request = {"method": "PUT", "url": fhir.url(f"Patient/{mark}"), "json": patient("Both") | {"id": mark}}
    assert asyncio.run(_together(fhir.base, 10, **request)) == {201: 1, 200: 9}
    assert fhir.get(f"Patient/{mark}/_history").json()["total"] == 10
