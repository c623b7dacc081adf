"""The REST and FHIR faces and the tools against the embedded store, through every real station."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from mesh.conftest import Mesh

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def doctor(mesh: Mesh) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {mesh.token('demo_doctor')}"}
    with httpx.Client(base_url=mesh.ready["gateway"], headers=headers, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def store(mesh: Mesh) -> str:
    return mesh.ready["store_platform"]


def tool(client: httpx.Client, name: str, **arguments: Any) -> Any:
    answer = client.post(f"/v1/tools/{name}", json=arguments)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.requirement("FG-1", "FG-2")
def test_health_and_platforms_need_no_credential(mesh: Mesh, store: str) -> None:
    with httpx.Client(base_url=mesh.ready["gateway"], timeout=60) as client:
        health = client.get("/health").json()
        listed = client.get("/api/platforms").json()
    assert health["status"] == "healthy"
    assert listed["total"] == health["platforms_registered"] >= 60
    assert store in {row["id"] for row in listed["platforms"]}


@pytest.mark.requirement("X-44")
def test_reads_need_a_credential(mesh: Mesh, store: str) -> None:
    with httpx.Client(base_url=mesh.ready["gateway"], timeout=60) as client:
        assert client.get(f"/api/fhir/{store}/Patient").status_code == 401
        broken = client.get(f"/api/fhir/{store}/Patient", headers={"authorization": "Bearer nonsense"})
    assert broken.status_code == 401


@pytest.mark.requirement("FG-4")
def test_metadata_of_the_store_is_summarised(doctor: httpx.Client, store: str) -> None:
    summary = doctor.get(f"/api/fhir/{store}/metadata").json()
    assert summary["fhirVersion"].startswith("4.0")
    assert "Patient" in {resource["type"] for resource in summary["resources"]}
    details = doctor.get(f"/api/fhir/{store}/metadata?resource_type=Patient").json()
    assert details["resource"] == "Patient"


@pytest.mark.requirement("FG-5", "X-2")
def test_a_client_pages_through_all_patients_by_our_links(doctor: httpx.Client, store: str) -> None:
    url, ids, total = f"/api/fhir/{store}/Patient?_count=20", [], None
    while url:
        bundle = doctor.get(url).json()
        total = total or bundle.get("total")
        ids += [entry["resource"]["id"] for entry in bundle["entry"] if entry["search"]["mode"] == "match"]
        following = [link["url"] for link in bundle["link"] if link["relation"] == "next"]
        url = following[0] if following else ""
    assert len(ids) == len(set(ids)) >= 50
    assert total in (None, len(ids))


@pytest.mark.requirement("FG-21")
def test_the_tools_find_read_and_describe(doctor: httpx.Client, store: str) -> None:
    assert store in {row["id"] for row in tool(doctor, "list_platforms")["platforms"]}
    assert tool(doctor, "get_capabilities", platform_id=store)["resourceType"] == "CapabilityStatement"
    found = tool(doctor, "search", platform_id=store, resource_type="Patient", limit=1)
    patient = found["entry"][0]["resource"]
    same = tool(doctor, "read", platform_id=store, resource_type="Patient", resource_id=patient["id"])
    assert same["id"] == patient["id"]
    face = doctor.get(f"/fhir/{store}/Patient/{patient['id']}")
    assert face.headers["content-type"].startswith("application/fhir+json")
    assert json.loads(face.content)["id"] == patient["id"]


def test_form_errors_come_before_everything_and_unknown_resources_are_404(doctor: httpx.Client, store: str) -> None:
    assert doctor.get(f"/api/fhir/{store}/patient").status_code == 400
    assert doctor.get(f"/api/fhir/{store}/Patient/does-not-exist").json() == {"detail": "Resource not found"}
    missing = doctor.get(f"/fhir/{store}/Patient/does-not-exist")
    assert (missing.status_code, missing.json()["resourceType"]) == (404, "OperationOutcome")
