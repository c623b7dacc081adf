"""A canary: unmistakable synthetic names and ids go through every face, then are searched where they must not be."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from mesh.ledger import until_recorded

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]

MODERN = {
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/call",
    "Accept": "application/json, text/event-stream",
}


def patient(family: str, given: str, ssn: str) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "name": [{"family": family, "given": [given]}],
        "identifier": [{"system": "http://hl7.org/fhir/sid/us-ssn", "value": ssn}],
        "gender": "other",
        "birthDate": "1950-02-03",
        "address": [{"line": [f"{family} Street 1"]}],
    }


async def tool(http: httpx.AsyncClient, token: str, name: str, arguments: dict[str, Any]) -> httpx.Response:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "canary", "version": "1.0.0"},
    }
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": name, "arguments": arguments, "_meta": meta},
    }
    return await http.post("/mcp", json=body, headers={**MODERN, "Mcp-Name": name, "Authorization": f"Bearer {token}"})


async def leaves(url: str) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(url, timeout=60)
    try:
        rows = await connection.fetch("select leaf from event order by seq")
    finally:
        await connection.close()
    return [json.loads(row["leaf"]) for row in rows]


async def drive(http: httpx.AsyncClient, people: dict[str, Any], canary: dict[str, str]) -> tuple[str, set[str]]:
    """Every face and several people; the id the store gave out, a canary too, and the ids of calls that found it."""
    admin, nurse, reception = (people[f"demo_{name}"]["token"] for name in ("admin", "nurse", "reception"))
    bearer = {"Authorization": f"Bearer {admin}"}
    created = await http.post(
        "/api/fhir/store/Patient", json=patient(canary["family"], canary["given"], canary["ssn"]), headers=bearer
    )
    assert created.status_code in (200, 201), created.text
    name, good = created.json()["id"], {created.headers["x-request-id"]}
    for token in (admin, nurse, reception):
        header = {"Authorization": f"Bearer {token}"}
        for path in (
            f"/api/fhir/store/Patient/{name}",
            f"/api/fhir/store/Patient?name={canary['family']}&given={canary['given']}",
            f"/fhir/store/Patient/{name}",
            f"/fhir/store/Observation?subject=Patient/{name}",
            f"/api/fhir/store/Condition?subject:Patient.name={canary['family']}",
        ):
            read = await http.get(path, headers=header)
            good |= {read.headers["x-request-id"]} if read.status_code == 200 else set()
        await tool(http, token, "read", {"platform_id": "store", "resource_type": "Patient", "resource_id": name})
        await tool(
            http,
            token,
            "search",
            {"platform_id": "store", "resource_type": "Patient", "params": {"name": canary["family"]}},
        )
    # Wrong input of every sort must not be quoted back into a log either.
    await http.get(f"/api/fhir/store/Patient/{canary['family']}$", headers=bearer)
    await http.get(f"/api/fhir/store/{canary['family']}/1", headers=bearer)
    await http.post("/api/fhir/store/Patient", content=f'{{"resourceType": "{canary["family"]}', headers=bearer)
    await tool(http, admin, "read", {"platform_id": canary["family"], "nonsense": canary["given"]})
    return name, good


@pytest.mark.requirement("AR-8", "AU-103", "DP-503", "X-36", "FG-38")
async def test_no_name_number_or_id_of_a_patient_leaves_the_bodies(mesh: Any) -> None:
    tag = secrets.token_hex(4)
    canary = {"family": f"Kanarie{tag}", "given": f"Tweety{tag}", "ssn": f"999-{tag}-0001"}
    async with httpx.AsyncClient(base_url=mesh.ready["gateway"], timeout=60) as http:
        name, good = await drive(http, mesh.ready["people"], canary)
    assert len(good) > 5
    assert not await until_recorded(mesh, good)
    needles = [*canary.values(), name]
    logs = [path for path in Path(mesh.ready["logs"]).rglob("*") if path.is_file()]
    assert any(path.stat().st_size for path in logs)
    found = [
        f"{path.name}: {needle}" for path in logs for needle in needles if needle in path.read_text(errors="replace")
    ]
    assert not found
    events = await leaves(mesh.ready["audit_environment"]["WARDMESH_AUDIT_READER_URL"])
    assert len(events) > 20
    for event in events:
        event.get("data", {}).pop("enc", None)
        text = json.dumps(event)
        assert not [needle for needle in needles if needle in text], event["type"]
