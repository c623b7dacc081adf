"""Bundles as other tools make them, the demo data, and what the command line does with both."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from store_stage import SYNTHEA, Fhir, StoreProcess, new_process, patient, running

FILES = sorted(SYNTHEA.glob("*.json"))
URN = re.compile(rb"urn:uuid:[0-9a-f-]{36}")
needs_synthea = pytest.mark.skipif(not FILES, reason="WARDMESH_TEST_SYNTHEA names no folder with Bundles")


@pytest.fixture(scope="module")
def demo(database_url: str) -> Iterator[tuple[StoreProcess, Fhir]]:
    assert new_process(database_url).command("seed").returncode == 1, "without a schema"
    with running(database_url, {}, ("migrate",), ("seed",)) as store:  # the schema twice: safe to repeat
        client = Fhir(store.base)
        yield store, client
        client.http.close()


def test_the_demo_hospital_has_its_numbers(demo: tuple[StoreProcess, Fhir]) -> None:
    _, fhir = demo

    def count(query: str) -> int:
        return fhir.get(f"{query}&_summary=count").json()["total"]

    assert count("Appointment?date=ge1900") == 100
    assert count("Appointment?status=booked") > 10
    assert count("Appointment?status=fulfilled") > 10
    assert count("Encounter?class=AMB") == count("Condition?code:missing=false") == 80
    assert count("Encounter?class=IMP") == 25
    assert count("Slot?status=busy") == 50
    assert count("AllergyIntolerance?patient=PT-12345") == 1
    ids = [e["resource"]["id"] for page in fhir.pages("Patient?_elements=id&_count=40") for e in page["entry"]]
    short = [i for i in ids if re.fullmatch(r"(?=.*\d)[A-Z0-9]{5}", i)]
    assert (len(ids), len(short)) == (52, 50)
    for needed in ("identifier", "telecom", "address", "gender", "birthdate"):
        assert count(f"Patient?{needed}:missing=true") == 0, needed


@pytest.mark.requirement("SH-15")
def test_the_named_demo_people_are_there(demo: tuple[StoreProcess, Fhir]) -> None:
    _, fhir = demo
    coverage = fhir.get("Coverage?beneficiary=Patient/FCE57").json()["entry"][0]["resource"]
    assert (coverage["payor"][0]["display"], coverage["subscriberId"]) == ("BlueCross", "BC-12345")
    assert fhir.ids("Encounter?patient=FCE57&class=AMB")
    assert fhir.ids("Appointment?patient=FCE57")
    smith = fhir.get("Patient/04c704c4-5d2d-4308-9c33-1690a6e47a6b").json()
    assert (smith["meta"]["versionId"], smith["name"][0]["family"], len(smith["telecom"])) == ("1", "Smith", 1)
    assert fhir.get("Patient/DP100").status_code == 200
    assert fhir.get("Practitioner/DR100").status_code == 200
    for query in ("Condition", "MedicationRequest", "AllergyIntolerance", "Encounter"):
        assert fhir.ids(f"{query}?patient=PT-12345"), query
    assert fhir.ids("Appointment?patient=PT-12345&status=booked")
    assert fhir.ids("Observation?patient=FCE57&category=laboratory")


def test_seeding_again_changes_nothing(demo: tuple[StoreProcess, Fhir]) -> None:
    store, fhir = demo
    before = fhir.get("_history?_count=0").json()["total"]
    assert store.command("seed").returncode == 0
    assert fhir.get("_history?_count=0").json()["total"] == before


def test_collections_and_refused_files_are_told_apart(demo: tuple[StoreProcess, Fhir], tmp_path: Path) -> None:
    store, fhir = demo
    collection = {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"resource": patient("Coll") | {"id": "coll-1"}}],
    }
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(collection))
    bad.write_text(json.dumps(collection | {"type": "batch"}))
    assert store.command("load", str(good)).returncode == 0
    assert fhir.get("Patient/coll-1").status_code == 200
    later = tmp_path / "later.json"
    later.write_text(json.dumps(collection | {"entry": [{"resource": patient("Coll") | {"id": "coll-2"}}]}))
    refused = store.command("load", str(bad), str(good), str(later))
    told = refused.stderr.decode()
    assert (refused.returncode, f"{bad}: Bundle.type: Only transaction" in told) == (1, True), told
    assert fhir.get("Patient/coll-2").status_code == 200, "the good file was loaded all the same"
    assert fhir.get("Patient/coll-1").json()["meta"]["versionId"] == "1", "and what was loaded before was left out"


@needs_synthea
@pytest.mark.requirement("ST-1", "ST-25")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.split("_")[0])
def test_synthea_bundles_load_and_come_back_byte_identical(fhir: Fhir, file: Path) -> None:
    """Every top-level member but id and meta; only the temporary addresses differ."""
    body = file.read_bytes()
    answer = fhir.call("POST", "", body)
    assert answer.status_code == 200, answer.text[:500]
    sent = json.loads(body)["entry"]
    raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])["entry"]
    entries = [dict(entry) for entry in msgspec.json.decode(raw, type=list[dict[str, msgspec.Raw]])]
    places = [entry["response"]["location"].removeprefix(fhir.base + "/") for entry in answer.json()["entry"]]
    addresses = {entry["fullUrl"]: place.split("/_history")[0] for entry, place in zip(sent, places, strict=True)}
    stored = {place: fhir.get(place).content for place in places}
    for entry, place in zip(entries, places, strict=True):
        wanted = members(bytes(entry["resource"]))
        found = members(stored[place])
        assert found.keys() - {"meta", "id"} == wanted.keys() - {"meta", "id"}
        for name in wanted.keys() - {"meta", "id"}:
            expected = URN.sub(lambda m: addresses.get(m[0].decode(), m[0].decode()).encode(), wanted[name])
            assert found[name] == expected, (place, name)


def members(body: bytes) -> dict[str, bytes]:
    raw: dict[str, Any] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return {name: bytes(value) for name, value in raw.items()}
