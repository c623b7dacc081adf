"""What a datastore can be set to: referential integrity, version-aware updates, read-only."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import httpx
import pytest
from store_stage import Fhir, StoreProcess, issue_of, observation, patient

Maker = Callable[..., Fhir]


async def _set(url: str, public_id: str, options: dict[str, bool]) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            """INSERT INTO datastore (public_id, name, status, link_key, options) VALUES ($1, 'x', 'ACTIVE', $2, $3)
            ON CONFLICT (public_id) DO UPDATE SET options = EXCLUDED.options""",
            public_id,
            secrets.token_bytes(32),
            json.dumps(options),
        )
    finally:
        await connection.close()


@pytest.fixture
def with_options(process: StoreProcess) -> Iterator[Maker]:
    """A datastore of its own with these options; called with a client again it changes them."""
    clients: dict[str, Fhir] = {}

    def make(known: Fhir | None = None, **options: bool) -> Fhir:
        public_id = known.base.split("/")[-2] if known else secrets.token_hex(16)
        asyncio.run(_set(process.database_url, public_id, options))
        base = f"{process.base.removesuffix('/fhir')}/datastore/{public_id}/r4"
        return clients.setdefault(public_id, Fhir(base))

    yield make
    for client in clients.values():
        client.http.close()


def policy(fhir: Fhir) -> list[str]:
    return fhir.get("metadata").json()["rest"][0]["resource"][0]["referencePolicy"]


@pytest.mark.requirement("ST-10")
def test_referential_integrity_is_off_unless_a_datastore_asks_for_it(with_options: Maker, fhir: Fhir) -> None:
    assert fhir.post("Observation", observation("Patient/never-there")).status_code == 201
    assert "enforced" not in policy(fhir)
    strict = with_options(referential_integrity=True)
    assert "enforced" in policy(strict)
    refused = strict.post("Observation", observation("Patient/never-there"))
    assert refused.status_code == 400
    issue_of(refused)
    person = strict.create(patient("x"))["id"]
    seen = strict.create(observation(f"Patient/{person}"))["id"]
    held = strict.call("DELETE", f"Patient/{person}")
    assert held.status_code == 409
    issue_of(held)
    both = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"request": {"method": "DELETE", "url": f"Patient/{person}"}},
            {"request": {"method": "DELETE", "url": f"Observation/{seen}"}},
        ],
    }
    assert strict.post("", both).status_code == 200, "together they may go"
    together = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"fullUrl": "urn:uuid:1", "resource": patient("y"), "request": {"method": "POST", "url": "Patient"}},
            {"resource": observation("urn:uuid:1"), "request": {"method": "POST", "url": "Observation"}},
        ],
    }
    assert strict.post("", together).status_code == 200, "and come"


@pytest.mark.requirement("ST-10")
def test_a_target_cannot_vanish_while_it_gets_its_first_reference(with_options: Maker) -> None:
    strict = with_options(referential_integrity=True)
    for _ in range(6):
        person = strict.create(patient("x"))["id"]
        with ThreadPoolExecutor(2) as pool:
            made = pool.submit(httpx.post, strict.url("Observation"), json=observation(f"Patient/{person}"))
            gone = pool.submit(httpx.delete, strict.url(f"Patient/{person}"))
            outcome = made.result(30).status_code, gone.result(30).status_code
        assert outcome in ((201, 409), (400, 204)), outcome


def test_version_aware_updates_can_be_demanded(with_options: Maker) -> None:
    aware = with_options(versioned_update=True)
    assert aware.get("metadata").json()["rest"][0]["resource"][0]["versioning"] == "versioned-update"
    made = aware.create(patient("x"))
    path = f"Patient/{made['id']}"
    assert aware.put(path, made).status_code == 400
    assert aware.put(path, made, If_Match='W/"1"').status_code == 200


@pytest.mark.requirement("ST-72")
def test_a_read_only_datastore_refuses_every_change_and_says_so(with_options: Maker) -> None:
    fhir = with_options()
    made = fhir.create(patient("x"))
    path = f"Patient/{made['id']}"
    with_options(fhir, read_only=True)
    limit = time.monotonic() + 60
    while fhir.call("DELETE", "Patient/never-there").status_code != 403:
        assert time.monotonic() < limit, "what was known of the datastore never grew old"
    entry = {"resource": made, "request": {"method": "PUT", "url": path}}
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    meta = {"resourceType": "Parameters", "parameter": [{"name": "meta", "valueMeta": {"profile": ["urn:x"]}}]}
    refusals = [
        fhir.post("Patient", patient("y")),
        fhir.call("DELETE", path),
        fhir.call("PATCH", path, "[]", Content_Type="application/json-patch+json"),
        fhir.put("Patient?family=x", patient("x")),
        fhir.call("DELETE", "Patient?family=x"),
        fhir.post("", bundle),
        fhir.post(f"{path}/$meta-add", meta),
        fhir.post(f"{path}/$meta-delete", meta),
        fhir.call("POST", "Binary", b"x", Content_Type="text/plain"),
    ]
    for refused in refusals:
        assert refused.status_code == 403
        assert "read-only mode" in issue_of(refused)["diagnostics"]
    batch = fhir.post("", bundle | {"type": "batch"}).json()
    assert batch["entry"][0]["response"]["status"].startswith("403")
    assert fhir.get(path).json()["meta"]["versionId"] == "1"
    rest = fhir.get("metadata").json()["rest"][0]
    declared = {i["code"] for r in rest["resource"] for i in r["interaction"]} | {
        i["code"] for i in rest["interaction"]
    }
    assert not declared & {"create", "update", "patch", "delete", "transaction"}
    assert {"read", "search-type", "batch"} <= declared
    assert not {"meta-add", "meta-delete"} & {o["name"] for r in rest["resource"] for o in r["operation"]}
    assert fhir.post("Patient/$validate", patient("x")).status_code == 200
