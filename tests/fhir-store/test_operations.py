"""$meta, $validate, $everything, Binary, and the options of a datastore, over HTTP."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from store_stage import FHIR_JSON, Fhir, issue_of, observation, patient

DEPTH = "urn:wardmesh:fhir:validation-depth"
US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/"


def meta_parameters(**meta: Any) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": meta}]}


def returned(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return answer.json()["parameter"][0].get("valueMeta", {})


@pytest.mark.requirement("ST-60")
def test_tags_come_and_go_without_a_new_version_and_readers_notice(fhir: Fhir, mark: str) -> None:
    made = fhir.create(patient(mark, meta={"tag": [{"system": "urn:t", "code": f"{mark}a"}]}))
    path = f"Patient/{made['id']}"
    before = fhir.get(path)
    added = returned(fhir.post(f"{path}/$meta-add", meta_parameters(tag=[{"system": "urn:t", "code": f"{mark}b"}])))
    assert [tag["code"] for tag in added["tag"]] == [f"{mark}a", f"{mark}b"]
    again = returned(fhir.post(f"{path}/$meta-add", meta_parameters(tag=[{"system": "urn:t", "code": f"{mark}b"}])))
    assert again["tag"] == added["tag"], "added once"
    assert fhir.ids(f"Patient?_tag=urn:t|{mark}b") == [made["id"]], "effective at once"
    now = fhir.get(path, If_None_Match=before.headers["etag"])
    assert now.status_code == 200, "a reader's copy is no longer the whole truth"
    assert now.json()["meta"]["versionId"] == "1"
    assert fhir.get(path, If_None_Match=now.headers["etag"]).status_code == 304
    assert fhir.get(path, If_Modified_Since=now.headers["last-modified"]).status_code == 200
    assert fhir.get(f"{path}/_history").json()["total"] == 1
    fhir.post(f"{path}/$meta-delete", meta_parameters(tag=[{"system": "urn:t", "code": f"{mark}a"}]))
    assert fhir.ids(f"Patient?_tag=urn:t|{mark}a") == []
    assert returned(fhir.get(f"{path}/$meta"))["tag"] == [{"system": "urn:t", "code": f"{mark}b"}]
    assert {"system": "urn:t", "code": f"{mark}b"} in returned(fhir.get("Patient/$meta"))["tag"]
    assert {"system": "urn:t", "code": f"{mark}b"} in returned(fhir.get("$meta"))["tag"]
    assert {"system": "urn:t", "code": f"{mark}b"} not in returned(fhir.get("Device/$meta")).get("tag", [])
    updated = fhir.put(path, patient(f"{mark}x") | {"id": made["id"]}, If_Match=now.headers["etag"])
    assert updated.json()["meta"]["versionId"] == "2"


@pytest.mark.requirement("ST-60")
def test_an_old_version_takes_tags_without_touching_the_current_one(fhir: Fhir, mark: str) -> None:
    made = fhir.create(patient(mark))
    path = f"Patient/{made['id']}"
    fhir.put(path, patient(mark) | {"id": made["id"]})
    fhir.post(f"{path}/_history/1/$meta-add", meta_parameters(profile=["urn:p"], security=[{"code": mark}]))
    assert returned(fhir.get(f"{path}/_history/1/$meta"))["profile"] == ["urn:p"]
    assert "profile" not in returned(fhir.get(f"{path}/$meta"))
    assert fhir.ids(f"Patient?_security={mark}") == []
    for bad in ({}, meta_parameters(tag="x"), {"resourceType": "Parameters"}):
        assert fhir.post(f"{path}/$meta-add", bad).status_code in (400, 422)
    assert fhir.post("Patient/none/$meta-add", meta_parameters(profile=["urn:p"])).status_code == 404
    assert fhir.get(f"{path}/$meta-add").status_code == 405
    fhir.call("DELETE", path)
    assert fhir.get(f"{path}/$meta").status_code == 410


def depth_of(answer: Any) -> str:
    assert answer.status_code == 200, answer.text
    (extension,) = answer.json()["extension"]
    assert extension["url"] == DEPTH
    return extension["valueCode"]


def severities(answer: Any, *codes: str) -> list[str]:
    return [issue["diagnostics"] for issue in answer.json()["issue"] if issue["severity"] in codes]


@pytest.mark.requirement("ST-59")
def test_validation_names_its_depth_and_what_it_left_out(fhir: Fhir, mark: str) -> None:
    good = fhir.post("Patient/$validate", patient(mark))
    assert depth_of(good) == "invariants"
    assert severities(good, "error", "fatal") == []
    assert "No error was found at depth invariants." in severities(good, "information")
    text = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'}
    skipped = severities(fhir.post("Patient/$validate", patient(mark, text=text)), "information")
    assert "Constraint txt-1 was not evaluated." in skipped
    broken = fhir.post("Patient/$validate", patient(mark, gender="x"))
    assert (depth_of(broken), broken.json()["issue"][0]["expression"]) == ("structural", ["Patient.gender"])
    contact = fhir.post("Patient/$validate", patient(mark, contact=[{"gender": "male"}]))
    assert severities(contact, "error")[0].startswith("pat-1")
    (fault,) = [issue for issue in contact.json()["issue"] if issue["severity"] == "error"]
    assert fault["expression"] == ["Patient.contact[0]"]
    parameters = {
        "resourceType": "Parameters",
        "parameter": [{"name": "resource", "resource": patient(mark)}, {"name": "mode", "valueCode": "update"}],
    }
    assert severities(fhir.post("Patient/$validate", parameters), "error"), "an update needs an id"
    made = fhir.create(patient(mark))["id"]
    assert depth_of(fhir.get(f"Patient/{made}/$validate")) == "invariants"
    assert depth_of(fhir.get(f"Patient/{made}/$validate?mode=delete")) == "json"
    assert fhir.post("Patient/$validate?mode=guess", patient(mark)).status_code == 400
    assert fhir.get("Patient/none/$validate").status_code == 404
    other = fhir.post("Observation/$validate", patient(mark))
    assert severities(other, "error")
    assert fhir.get(f"Patient?family={mark}").json()["total"] == 1, "nothing is stored"


RACE: dict[str, Any] = {
    "url": US_CORE + "us-core-race",
    "extension": [
        {"url": "ombCategory", "valueCoding": {"system": "urn:oid:2.16.840.1.113883.6.238", "code": "2106-3"}},
        {"url": "text", "valueString": "White"},
    ],
}
PRESSURE = observation(
    "Patient/x",
    code={"coding": [{"system": "http://loinc.org", "code": "85354-9"}]},
    category=[
        {
            "coding": [
                {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"},
            ]
        }
    ],
    effectiveDateTime="2024-01-01",
    component=[
        {
            "code": {"coding": [{"system": "http://loinc.org", "code": code}]},
            "valueQuantity": {
                "value": 120,
                "unit": "mmHg",
                "system": "http://unitsofmeasure.org",
                "code": "mm[Hg]",
            },
        }
        for code in ("8480-6", "8462-4")
    ],
)


@pytest.mark.requirement("ST-59")
@pytest.mark.parametrize("version", ["", "|6.1.0", "|7.0.0"])
def test_a_profile_is_judged_as_far_as_it_is_held(fhir: Fhir, mark: str, version: str) -> None:
    profile = f"{US_CORE}us-core-patient{version}"
    good = patient(mark, gender="male", identifier=[{"system": "urn:i", "value": "1"}], extension=[RACE])
    answer = fhir.post(f"Patient/$validate?profile={profile}", good)
    assert depth_of(answer) == "profile-subset"
    assert severities(answer, "error") == []
    assert any("Must-support" in text for text in severities(answer, "information"))
    bad = fhir.post(f"Patient/$validate?profile={profile}", {"resourceType": "Patient"} | {"active": True})
    wanted = {issue["expression"][0] for issue in bad.json()["issue"] if issue["severity"] == "error"}
    assert {"Patient.identifier", "Patient.name", "Patient.gender"} <= wanted
    textless = good | {"extension": [RACE | {"extension": RACE["extension"][:1]}]}
    missing = fhir.post(f"Patient/$validate?profile={profile}", textless)
    assert any(
        i["expression"][0].startswith("Patient.extension[0]") for i in missing.json()["issue"] if "expression" in i
    )
    assert severities(missing, "error")


@pytest.mark.requirement("ST-59")
def test_slices_patterns_and_fixed_values_of_a_profile_are_judged(fhir: Fhir) -> None:
    path = f"Observation/$validate?profile={US_CORE}us-core-blood-pressure|6.1.0"
    assert severities(fhir.post(path, PRESSURE), "error") == []
    half = PRESSURE | {"component": PRESSURE["component"][:1]}
    assert severities(fhir.post(path, half), "error")
    wrong = json.loads(json.dumps(PRESSURE).replace("mm[Hg]", "kPa"))
    assert any("fixes another value" in text for text in severities(fhir.post(path, wrong), "error"))
    other = json.loads(json.dumps(PRESSURE).replace("85354-9", "1-8"))
    assert any("pattern" in text for text in severities(fhir.post(path, other), "error"))
    unknown = fhir.post("Observation/$validate?profile=urn:nowhere", PRESSURE)
    assert severities(unknown, "error") == ["The profile is not held here: the resource was not judged against it."]
    wrong_type = fhir.post(f"Observation/$validate?profile={US_CORE}us-core-patient", PRESSURE)
    assert severities(wrong_type, "error") == ["The profile is for another type."]


@pytest.mark.requirement("ST-58")
def test_everything_of_an_encounter_and_of_a_patient_by_post(fhir: Fhir, mark: str) -> None:
    person = fhir.create(patient(mark))["id"]
    visit = fhir.create(
        {
            "resourceType": "Encounter",
            "status": "finished",
            "class": {"code": "AMB"},
            "subject": {"reference": f"Patient/{person}"},
        }
    )["id"]
    seen = fhir.create(observation(f"Patient/{person}", encounter={"reference": f"Encounter/{visit}"}))["id"]
    fhir.create(observation(f"Patient/{person}"))
    bundle = fhir.get(f"Encounter/{visit}/$everything").json()
    matches = {e["resource"]["id"] for e in bundle["entry"] if e["search"]["mode"] == "match"}
    assert matches == {visit, seen}
    assert person in {e["resource"]["id"] for e in bundle["entry"] if e["search"]["mode"] == "include"}
    assert fhir.get(f"Encounter/{visit}/$everything?start=2020").status_code == 400
    parameters = {"resourceType": "Parameters", "parameter": [{"name": "_count", "valueInteger": 1}]}
    posted = fhir.post(f"Patient/{person}/$everything", parameters)
    assert (posted.status_code, len(posted.json()["entry"])) == (200, 1)
    assert "next" in {link["relation"] for link in posted.json()["link"]}
    assert fhir.get("Device/x/$everything").status_code == 404


@pytest.mark.requirement("ST-62")
def test_a_binary_is_its_content(fhir: Fhir) -> None:
    content = bytes(range(256)) * 10
    made = fhir.call("POST", "Binary", content, Content_Type="image/png", X_Security_Context="Patient/x")
    assert made.status_code == 201
    stored = made.json()
    assert stored["contentType"] == "image/png"
    assert base64.b64decode(stored["data"]) == content
    path = f"Binary/{stored['id']}"
    for accept in ("*/*", "image/png"):
        raw = fhir.get(path, Accept=accept)
        assert (raw.status_code, raw.content) == (200, content)
        assert raw.headers["content-type"] == "image/png"
        assert raw.headers["x-content-type-options"] == "nosniff"
        assert raw.headers["content-disposition"] == "attachment"
        assert raw.headers["x-security-context"] == "Patient/x"
        assert raw.headers["etag"] == 'W/"1"'
    assert fhir.get(path, Accept=FHIR_JSON).json()["resourceType"] == "Binary"
    assert fhir.get(f"{path}?_format=json", Accept="*/*").json()["resourceType"] == "Binary"
    changed = fhir.call("PUT", path, b"hello", Content_Type="text/plain", If_Match='W/"1"')
    assert (changed.status_code, fhir.get(path, Accept="*/*").text) == (200, "hello")
    assert fhir.get(f"{path}/_history/1", Accept="*/*").content == content
    assert fhir.get(path, Accept="*/*", If_None_Match='W/"2"').status_code == 304
    fhir.call("DELETE", path)
    gone = fhir.get(path, Accept="*/*")
    assert gone.status_code == 410
    issue_of(gone)
