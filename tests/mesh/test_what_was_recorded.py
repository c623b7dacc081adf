"""What the running mesh records: every event is valid and documented, and checkpoints carry a witness' signature."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import jsonschema_rs
import pytest

from wardmesh_audit.event_schemas import all_schemas, undocumented

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(400)]


def calls(mesh: Any) -> int:
    """Reads, searches, a refusal, something that is not there and a write: more kinds than any one of them has."""
    requests = [
        ("demo_doctor", "GET", "Patient/FCE57", None),
        ("demo_doctor", "GET", "Patient/FCE57/_history", None),
        ("demo_doctor", "GET", "Observation?patient=FCE57", None),
        ("demo_nurse", "GET", "Patient/FCE57", None),
        ("demo_billing", "GET", "Condition?patient=FCE57", None),
        ("demo_doctor", "GET", "Patient/nobody", None),
        ("demo_doctor", "POST", "Observation", {"resourceType": "Observation"}),
    ]
    for person, method, path, body in requests:
        headers = {"Authorization": f"Bearer {mesh.ready['people'][person]['token']}"}
        httpx.request(method, f"{mesh.ready['gateway']}/fhir/store/{path}", headers=headers, json=body, timeout=60)
    return len(requests)


def size_of(mesh: Any) -> int:
    done = mesh.audit("status", "--json")
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout.splitlines()[0])["size"])


@pytest.mark.requirement("AU-102")
def test_every_event_of_the_run_validates_against_its_published_schema(mesh: Any) -> None:
    schemas = all_schemas()
    validators = {name: jsonschema_rs.Draft202012Validator(schema) for name, schema in schemas.items()}
    before, made, limit = size_of(mesh), calls(mesh), time.monotonic() + 60
    while (size := size_of(mesh)) < before + made:
        assert time.monotonic() < limit, f"{size} events"
        time.sleep(0.2)
    done = mesh.audit("tail", "--start", "0", "--count", str(size), "--json")
    events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert len(events) >= size > 0, done.stderr
    wrong: list[str] = []
    for event in events:
        name = str(event.get("dataschema", "schemas/malformed.v1.json")).removeprefix("schemas/")
        wrong += [f"{name}: {error.message}" for error in validators[name].iter_errors(event)]
        wrong += [f"{name}: {field} is not documented" for field in undocumented(event, schemas[name])]
    assert sorted(set(wrong)) == []


def test_the_ledger_is_what_the_witness_has_cosigned(mesh: Any) -> None:
    assert mesh.status()["witness"]["state"] == "ready"
    limit = time.monotonic() + 60
    while (done := mesh.audit("verify", "--against", "witness")).returncode != 0:
        assert time.monotonic() < limit, done.stdout + done.stderr
        time.sleep(0.5)
