"""Bulk Data `$export`: kick-off, poll, manifest, files, cancelling; three levels, `_since`, `_type`, `_typeFilter`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from lake_stage import client_of, fhir_of, gate, waited
from store_stage import Fhir, StoreProcess, issue_of, observation, patient

WAIT_SECONDS = 60


@pytest.fixture
def fhir(store: StoreProcess) -> Iterator[Fhir]:
    made = client_of(store).create_fhir_datastore(DatastoreTypeVersion="R4")["DatastoreId"]
    client = fhir_of(store, made)
    yield client
    client.http.close()


def kick_off(fhir: Fhir, path: str) -> str:
    answer = fhir.get(path, Prefer="respond-async")
    assert answer.status_code == 202, answer.text
    assert answer.content == b""
    return answer.headers["content-location"]


def manifest(fhir: Fhir, place: str) -> dict[str, Any]:
    limit = time.monotonic() + WAIT_SECONDS
    while (answer := fhir.get(place, Accept="application/json")).status_code == 202:
        assert answer.headers["x-progress"]
        assert int(answer.headers["retry-after"]) > 0
        assert time.monotonic() < limit
        time.sleep(0.05)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def exported(fhir: Fhir, path: str) -> dict[str, list[dict[str, Any]]]:
    """Resources by type, as the files of a whole export hold them."""
    found: dict[str, list[dict[str, Any]]] = {}
    told = manifest(fhir, kick_off(fhir, path))
    for one in told["output"]:
        answer = fhir.get(one["url"], Accept="application/fhir+ndjson")
        assert answer.headers["content-type"] == "application/fhir+ndjson"
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert len(lines) == one["count"]
        assert {line["resourceType"] for line in lines} == {one["type"]}
        found.setdefault(one["type"], []).extend(lines)
    return found


def ids(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
    return {kind: sorted(one["id"] for one in lines) for kind, lines in found.items()}


def fill(fhir: Fhir) -> None:
    for name in ("a", "b", "c"):
        fhir.put(f"Patient/{name}", patient(name.upper()) | {"id": name})
        status = {"status": "final" if name == "a" else "preliminary"}
        fhir.put(f"Observation/o-{name}", observation(f"Patient/{name}") | status | {"id": f"o-{name}"})
    fhir.put("Observation/o-none", observation() | {"id": "o-none"})
    fhir.put("Organization/org", {"resourceType": "Organization", "id": "org", "name": "Org"})
    member = [
        {"entity": {"reference": "Patient/a"}},
        {"entity": {"reference": f"{fhir.base}/Patient/b"}},
        {"entity": {"reference": "Patient/c"}, "inactive": True},
    ]
    group = {"resourceType": "Group", "id": "g", "type": "person", "actual": True, "member": member}
    assert fhir.put("Group/g", group).status_code == 201


@pytest.mark.requirement("ST-70")
def test_three_levels_hold_what_belongs_to_them(fhir: Fhir) -> None:
    fill(fhir)
    everyone = {"Patient": ["a", "b", "c"], "Observation": ["o-a", "o-b", "o-c"], "Group": ["g"]}
    assert ids(exported(fhir, "$export")) == everyone | {
        "Observation": ["o-a", "o-b", "o-c", "o-none"],
        "Organization": ["org"],
    }
    assert ids(exported(fhir, "Patient/$export")) == everyone
    assert ids(exported(fhir, "Group/g/$export?_type=Patient,Observation")) == {
        "Patient": ["a", "b"],
        "Observation": ["o-a", "o-b"],
    }
    assert fhir.get("Group/none/$export", Prefer="respond-async").status_code == 404


@pytest.mark.requirement("ST-70")
def test_types_filters_and_times_narrow_an_export(fhir: Fhir) -> None:
    fill(fhir)
    assert ids(exported(fhir, "$export?_type=Patient&_outputFormat=ndjson")) == {"Patient": ["a", "b", "c"]}
    narrowed = "$export?_type=Patient,Observation&_typeFilter=Observation%3Fstatus%3Dfinal,Patient%3Ffamily%3DB"
    assert ids(exported(fhir, narrowed)) == {"Patient": ["b"], "Observation": ["o-a", "o-none"]}
    listed = {"include": [{"system": "http://hl7.org/fhir/observation-status", "concept": [{"code": "preliminary"}]}]}
    held = fhir.create({"resourceType": "ValueSet", "status": "active", "compose": listed})["id"]
    asked = f"$export?_type=Observation&_typeFilter=Observation%3Fstatus:in=ValueSet/{held}"
    assert ids(exported(fhir, asked)) == {"Observation": ["o-b", "o-c"]}
    fhir.call("DELETE", f"ValueSet/{held}")
    told = manifest(fhir, kick_off(fhir, "$export"))
    fhir.put("Patient/b", patient("Later") | {"id": "b"})
    fhir.call("DELETE", "Patient/c")
    since = told["transactionTime"]
    after = manifest(fhir, kick_off(fhir, f"$export?_since={since}"))
    (output,) = after["output"]
    assert (output["type"], [json.loads(fhir.get(output["url"], Accept="*/*").text)["id"]]) == ("Patient", ["b"])
    (deleted,) = after["deleted"]
    line = json.loads(fhir.get(deleted["url"], Accept="*/*").text)
    assert [entry["request"] for entry in line["entry"]] == [{"method": "DELETE", "url": "Patient/c"}]
    assert after["request"].endswith(f"$export?_since={since}")
    assert after["transactionTime"] > since


@pytest.mark.requirement("ST-70")
def test_a_cancelled_export_is_gone(fhir: Fhir) -> None:
    fill(fhir)
    place = kick_off(fhir, "$export")
    assert fhir.call("DELETE", place).status_code == 202
    assert fhir.get(place).status_code == 404
    place = kick_off(fhir, "$export")
    (url, *_) = [one["url"] for one in manifest(fhir, place)["output"]]
    assert fhir.call("DELETE", place).status_code == 202
    for gone in (place, url):
        assert fhir.get(gone).status_code == 404
    assert fhir.call("DELETE", place).status_code == 404


@pytest.mark.requirement("ST-70")
def test_a_running_export_that_is_cancelled_leaves_no_file(store: StoreProcess, fhir: Fhir, root: Path) -> None:
    """Not even the one that was being written."""
    fill(fhir)
    before = set(root.rglob("*.ndjson"))

    def files() -> int:
        return len(set(root.rglob("*.ndjson")) - before)

    with ThreadPoolExecutor(1) as pool, gate(store.database_url, 2):
        place = kick_off(fhir, "$export")
        until(lambda: files() == 2)
        cancelling = pool.submit(fhir.call, "DELETE", place)
        waited(store.database_url)
    assert cancelling.result(WAIT_SECONDS).status_code == 202
    assert fhir.get(place).status_code == 404
    until(lambda: files() == 0)


def until(done: Callable[[], bool]) -> None:
    limit = time.monotonic() + WAIT_SECONDS
    while not done():
        assert time.monotonic() < limit
        time.sleep(0.05)


@pytest.mark.requirement("ST-67")
def test_an_export_is_unknown_at_another_datastore(store: StoreProcess, fhir: Fhir) -> None:
    fill(fhir)
    place = kick_off(fhir, "$export")
    url = manifest(fhir, place)["output"][0]["url"]
    job = place.rsplit("/", 1)[1]
    for path in (f"bulk/{job}", f"bulk/{job}/1"):
        assert httpx.get(f"{store.base}/{path}").status_code == 404
        assert httpx.delete(f"{store.base}/{path}").status_code == 404
    assert fhir.get(url, Accept="*/*").status_code == 200


@pytest.mark.requirement("ST-70")
@pytest.mark.parametrize(
    "query",
    [
        "_type=Nothing",
        "_since=yesterday",
        "_since=2024",
        "_outputFormat=text/csv",
        "_typeFilter=Patient",
        "_typeFilter=Patient?unknown=1",
        "_typeFilter=Patient?gender:in=urn:unknown",
        "_elements=id",
        "patient=Patient/a",
    ],
)
def test_what_would_be_misunderstood_is_refused(fhir: Fhir, query: str) -> None:
    issue_of(fhir.get(f"$export?{query.replace('?', '%3F')}", Prefer="respond-async"))
    assert fhir.get("bulk/none").status_code == 404


@pytest.mark.requirement("ST-70")
def test_an_export_must_be_asked_for_asynchronously(fhir: Fhir) -> None:
    for path in ("$export", "Patient/$export", "Group/g/$export"):
        assert fhir.get(path).status_code == 400
    asked = {"resourceType": "Parameters", "parameter": [{"name": "_type", "valueString": "Patient"}]}
    answer = fhir.post("$export", asked, Prefer="respond-async")
    assert answer.status_code == 202
    assert manifest(fhir, answer.headers["content-location"])["output"] == []


def test_export_is_declared_where_it_is_offered(fhir: Fhir) -> None:
    rest = fhir.get("metadata").json()["rest"][0]
    assert {one["name"] for one in rest["operation"]} == {"meta", "export"}
    for kind, expected in (("Patient", True), ("Group", True), ("Observation", False)):
        (declared,) = [one for one in rest["resource"] if one["type"] == kind]
        assert ("export" in {one["name"] for one in declared["operation"]}) is expected
