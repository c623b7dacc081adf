"""HAPI as a platform of the mesh: what agents do with the embedded store they do with HAPI, through the same door."""

from __future__ import annotations

import tempfile
from pathlib import Path

import httpx
import pytest
from counterparts import hapi, hapi_missing

from mesh.conftest import running

PLATFORM = "hapi-local"


def observation(patient: str) -> dict[str, object]:
    code = {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}
    subject = {"reference": f"Patient/{patient}"}
    return {"resourceType": "Observation", "status": "final", "code": code, "subject": subject}


@pytest.mark.mesh
@pytest.mark.timeout(900)
@pytest.mark.skipif(bool(hapi_missing()), reason=hapi_missing())
def test_reads_searches_creates_and_operations_reach_hapi_through_the_gateway() -> None:
    # Below /tmp and open to walk through: the engines' account must reach its data.
    with hapi(validates=True) as base, tempfile.TemporaryDirectory(prefix="wm-hapi-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        planted = httpx.put(
            f"{base}/Patient/h1", json={"resourceType": "Patient", "id": "h1", "active": True}, timeout=60
        )
        assert planted.status_code == 201
        with running(Path(folder), "--platform", f"{PLATFORM}={base}", "--platform", f"hapi={base}") as mesh:
            headers = {"authorization": f"Bearer {mesh.token('demo_doctor')}", "content-type": "application/fhir+json"}
            with httpx.Client(
                base_url=f"{mesh.ready['gateway']}/fhir/{PLATFORM}", headers=headers, timeout=60
            ) as doctor:
                use(doctor)
                plain = doctor.get(f"{mesh.ready['gateway']}/fhir/hapi/Patient/h1")
                assert plain.status_code == 200, "an id that is in no catalogue is a platform as well"


def use(doctor: httpx.Client) -> None:
    read = doctor.get("/Patient/h1")
    assert (read.status_code, read.json()["active"]) == (200, True)
    created = doctor.post("/Observation", json=observation("h1"))
    assert created.status_code == 201, created.text
    found = doctor.get("/Observation?patient=h1&code=8867-4").json()
    assert [entry["resource"]["id"] for entry in found["entry"]] == [created.json()["id"]]
    everything = doctor.get("/Patient/h1/$everything")
    assert everything.status_code == 200, everything.text
    assert {entry["resource"]["resourceType"] for entry in everything.json()["entry"]} == {"Patient", "Observation"}
    good, bad = (
        doctor.post("/Observation/$validate", json=body)
        for body in (observation("h1"), observation("h1") | {"status": "nonsense"})
    )
    assert good.json()["resourceType"] == bad.json()["resourceType"] == "OperationOutcome"
    assert "error" not in {issue["severity"] for issue in good.json()["issue"]}, good.text
    assert "error" in {issue["severity"] for issue in bad.json()["issue"]}, bad.text
    refused = doctor.get("/Observation?nonsense=1")
    assert refused.status_code == 400, "HAPI was asked to be strict"
    assert "127.0.0.1" not in refused.text
