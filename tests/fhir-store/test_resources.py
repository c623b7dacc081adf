"""Representation, versions and plain CRUD."""

from __future__ import annotations

import json
import uuid

import pytest
from store_stage import FHIR_JSON, Fhir, issue_of, patient

EXACT = (
    '{"resourceType":"Observation","status":"final","code":{"text":"x"},'
    '"extension":[{"url":"urn:x","valueDecimal":1e2},{"url":"urn:y","valueDecimal":100000000000000000000.5}],'
    '"valueQuantity":{ "value" : 1.00 , "unit":"k\\u00e9"}}'
)


@pytest.mark.requirement("ST-1")
def test_stored_bytes_come_back_as_received_in_read_vread_search_and_history(fhir: Fhir) -> None:
    created = fhir.call("POST", "Observation", EXACT)
    identity = created.json()["id"]
    tail = EXACT.removeprefix('{"resourceType":"Observation",')
    for path in (
        f"Observation/{identity}",
        f"Observation/{identity}/_history/1",
        f"Observation?_id={identity}",
        f"Observation/{identity}/_history",
    ):
        body = fhir.get(path).text
        for member in tail[:-1].split(',"extension"')[0], '"value" : 1.00', "1e2", "100000000000000000000.5", "\\u00e9":
            assert member in body, path


@pytest.mark.requirement("ST-2")
def test_the_server_owns_version_and_time_and_keeps_the_rest_of_meta(fhir: Fhir) -> None:
    tag = {"system": "urn:t", "code": "kept"}
    sent = patient(
        "Meta", meta={"versionId": "77", "lastUpdated": "1999-01-01T00:00:00Z", "tag": [tag], "source": "urn:s"}
    )
    first = fhir.create(sent)
    assert first["meta"]["versionId"] == "1"
    assert first["meta"]["tag"] == [tag]
    assert first["meta"]["source"] == "urn:s"
    times = [first["meta"]["lastUpdated"]]
    for number in range(2, 7):
        answer = fhir.put(f"Patient/{first['id']}", sent | {"id": first["id"]}).json()
        assert answer["meta"]["versionId"] == str(number)
        times.append(answer["meta"]["lastUpdated"])
    assert times == sorted(set(times)), "strictly growing"
    assert all(len(time) == len("2026-01-01T00:00:00.000Z") and time.endswith("Z") for time in times)


@pytest.mark.requirement("ST-3")
def test_post_assigns_an_id_and_put_to_an_unknown_id_creates_it(fhir: Fhir) -> None:
    assert fhir.create(patient("Own") | {"id": "mine"})["id"] != "mine"
    identity = f"put-{uuid.uuid4().hex}"
    answer = fhir.put(f"Patient/{identity}", patient("Put") | {"id": identity})
    assert answer.status_code == 201
    assert fhir.get(f"Patient/{identity}").json()["id"] == identity
    for bad in ("a_b", "x" * 65):
        refused = fhir.put(f"Patient/{bad}", patient("Bad") | {"id": bad})
        assert refused.status_code == 400
        issue_of(refused)


@pytest.mark.requirement("ST-4")
def test_create_answers_with_location_etag_and_time(fhir: Fhir) -> None:
    answer = fhir.post("Patient", patient("Location"))
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{fhir.base}/Patient/{answer.json()['id']}/_history/1"
    assert answer.headers["etag"] == 'W/"1"'
    assert answer.headers["last-modified"].endswith(" GMT")
    mismatch = fhir.post("Observation", patient("Mismatch"))
    assert mismatch.status_code == 400
    issue_of(mismatch)


@pytest.mark.requirement("ST-5", "ST-6", "ST-8")
def test_reading_follows_a_resource_through_its_life(fhir: Fhir) -> None:
    identity = fhir.create(patient("Life"))["id"]
    path = f"Patient/{identity}"
    head, get = fhir.call("HEAD", path), fhir.get(path)
    assert (head.status_code, get.status_code) == (200, 200)
    for name in ("etag", "last-modified", "content-type", "content-length"):
        assert head.headers[name] == get.headers[name]
    assert head.content == b""
    fhir.put(path, patient("Later") | {"id": identity})
    deleted = fhir.call("DELETE", path)
    assert deleted.status_code == 204
    gone = fhir.get(path)
    assert gone.status_code == 410
    assert gone.headers["etag"] == 'W/"3"'
    assert issue_of(gone)["code"] == "deleted"
    assert fhir.get(f"{path}/_history/1").json()["name"][0]["family"] == "Life"
    assert fhir.get(f"{path}/_history/2").json()["name"][0]["family"] == "Later"
    assert fhir.get(f"{path}/_history/3").status_code == 410
    assert fhir.get(f"{path}/_history/4").status_code == 404
    assert fhir.get(f"{path}/_history/nonsense").status_code == 404
    assert fhir.call("DELETE", path).status_code == 204
    assert fhir.call("DELETE", "Patient/never-seen-id").status_code == 204
    assert fhir.get("Patient/never-seen-id").status_code == 404
    assert fhir.ids(f"Patient?_id={identity}") == []
    assert fhir.get(f"{path}/_history").json()["total"] == 3


@pytest.mark.requirement("ST-7")
def test_update_makes_versions_and_revives_a_deleted_resource(fhir: Fhir) -> None:
    identity = fhir.create(patient("One"))["id"]
    path = f"Patient/{identity}"
    updated = fhir.put(path, patient("Two") | {"id": identity})
    assert (updated.status_code, updated.headers["etag"]) == (200, 'W/"2"')
    for body in (patient("No"), patient("Other") | {"id": "other"}):
        refused = fhir.put(path, body)
        assert refused.status_code == 400
        assert issue_of(refused)["expression"] == ["Patient.id"]
    fhir.call("DELETE", path)
    revived = fhir.put(path, patient("Again") | {"id": identity})
    assert (revived.status_code, revived.headers["etag"]) == (201, 'W/"4"')
    assert fhir.ids(f"Patient?_id={identity}") == [identity]


@pytest.mark.requirement("ST-9")
def test_what_is_not_offered_is_refused_in_its_own_way(fhir: Fhir) -> None:
    identity = fhir.create(patient("Protocol"))["id"]
    unknown = fhir.get("Nothing/1")
    assert unknown.status_code == 404
    issue_of(unknown)
    posted = fhir.call("POST", f"Patient/{identity}", patient("x"))
    assert posted.status_code == 405
    assert "PUT" in posted.headers["allow"]
    issue_of(posted)
    xml = fhir.call("POST", "Patient", b"<Patient/>", Content_Type="application/fhir+xml")
    assert xml.status_code == 415
    issue_of(xml)
    wanted = fhir.get(f"Patient/{identity}", Accept="application/fhir+xml")
    assert wanted.status_code == 406
    issue_of(wanted)


@pytest.mark.requirement("ST-63")
def test_format_wins_over_accept_and_every_answer_is_fhir_json(fhir: Fhir) -> None:
    for value in (
        "json",
        "application/json",
        "application/json+fhir",
        "application/fhir%2Bjson",
        "application/fhir+json",
    ):
        answer = fhir.get(f"Patient?_count=1&_format={value}", Accept="application/fhir+xml")
        assert answer.status_code == 200, value
        assert answer.headers["content-type"] == "application/fhir+json; charset=utf-8"
    assert fhir.get("Patient?_format=xml").status_code == 406
    for accept in ("*/*", "application/json", FHIR_JSON, "text/html, */*;q=0.1"):
        assert fhir.get("Patient?_count=1", Accept=accept).status_code == 200, accept


@pytest.mark.requirement("ST-61")
def test_prefer_chooses_what_a_write_returns(fhir: Fhir) -> None:
    minimal = fhir.post("Patient", patient("Minimal"), Prefer="return=minimal")
    assert (minimal.status_code, minimal.content) == (201, b"")
    outcome = fhir.post("Patient", patient("Outcome"), Prefer="return=OperationOutcome")
    assert outcome.json()["resourceType"] == "OperationOutcome"
    whole = fhir.post("Patient", patient("Whole"), Prefer="return=representation")
    assert whole.json()["resourceType"] == fhir.post("Patient", patient("Default")).json()["resourceType"] == "Patient"


@pytest.mark.requirement("ST-65")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b'{"resourceType":"Patient","active":true,"active":false}', 400),
        (b'{"resourceType":"Patient","name":[{"family":"\\ud800"}]}', 400),
        (b'{"resourceType":"Patient","name":[{"family":"\\u0000"}]}', 422),
        (b'{"resourceType":"Patient","multipleBirthInteger":NaN}', 400),
        (b'{"resourceType":"Patient","name":' + b"[" * 3000 + b"]" * 3000 + b"}", 400),
        (b'{"resourceType":"Patient","unknown":1}', 422),
        (b'{"resourceType":"Patient","gender":"secret-word"}', 422),
        (b'{"resourceType":"Patient","birthDate":"2020-13-01"}', 422),
        (b'{"resourceType":"Patient","deceasedBoolean":true,"deceasedDateTime":"2020"}', 422),
        (b'{"resourceType":"Patient","managingOrganization":{"reference":"Patient/1"}}', 422),
        (b'{"resourceType":"Patient","contained":[{"resourceType":"Nothing"}]}', 422),
    ],
)
def test_bodies_that_cannot_be_stored_get_an_outcome(fhir: Fhir, body: bytes, status: int) -> None:
    answer = fhir.call("POST", "Patient", body)
    assert answer.status_code == status, answer.text
    issue_of(answer)
    assert "secret-word" not in answer.text


@pytest.mark.requirement("ST-65")
def test_a_structural_refusal_says_where_and_how_deep_it_looked(fhir: Fhir) -> None:
    answer = fhir.post("Observation", {"resourceType": "Observation", "code": {"text": "x"}, "component": [{}]})
    outcome = answer.json()
    assert outcome["extension"] == [{"url": "urn:wardmesh:fhir:validation-depth", "valueCode": "structural"}]
    places = {issue["expression"][0] for issue in outcome["issue"]}
    assert "Observation.status" in places
    assert any(place.startswith("Observation.component[0]") for place in places)


def test_a_body_above_the_limit_is_refused(fhir: Fhir) -> None:
    huge = json.dumps(patient("x" * (51 * 1024 * 1024))).encode()
    answer = fhir.call("POST", "Patient", huge)
    assert answer.status_code == 413
    assert issue_of(answer)["code"] == "too-costly"
