"""The SMART server's 17 tools over MCP: create, read, update, search, delete; a refusal in its words (SM-5, SM-6)."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from mesh.healthlake import Failed, lake

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
KINDS = ("Patient", "Practitioner", "Organization")


def named(kind: str, name: str) -> dict[str, Any]:
    return {"resourceType": kind, "name": name if kind == "Organization" else [{"family": name}]}


@pytest.mark.requirement("SM-5")
async def test_each_of_the_17_tools_does_what_its_name_says(mesh: Any) -> None:
    async with lake(mesh, profile="smedrec") as call:
        names = await call.names()
        assert len(names) == 17
        for kind in KINDS:
            made = await call(f"fhir{kind}Create", resource=named(kind, "Smedrecone"))
            changed = {**made, **named(kind, "Smedrectwo")}
            assert (await call(f"fhir{kind}Update", id=made["id"], resource=changed))["meta"]["versionId"] == "2"
            assert (await call(f"fhir{kind}Read", id=made["id"]))["name"] == named(kind, "Smedrectwo")["name"]
            for found in (
                await call(f"fhir{kind}Search", name="Smedrectwo"),
                await call(f"fhir{kind}Search", params={"name": "Smedrectwo"}),
                await call("fhirResourceSearch", resourceType=kind, searchParams={"name": "Smedrectwo"}),
            ):
                assert [entry["resource"]["id"] for entry in found["entry"]] == [made["id"]]
            await call("fhirResourceDelete", resourceType=kind, id=made["id"])
            with pytest.raises(Failed, match=f"FHIR {kind} read failed: Status 410"):
                await call(f"fhir{kind}Read", id=made["id"])
        made = await call("fhirResourceCreate", resourceType="Patient", resource=named("Patient", "Anykind"))
        same = {"resourceType": "Patient", "id": made["id"]}
        changed = {**made, "gender": "female"}
        assert (await call("fhirResourceUpdate", **same, resource=changed))["gender"] == "female"
        assert (await call("fhirResourceRead", **same))["gender"] == "female"
        await call("fhirResourceDelete", **same)


@pytest.mark.requirement("SM-4", "X-25")
async def test_over_two_replicas_both_transports_of_sse_find_their_answers(mesh: Any) -> None:
    headers = {"Authorization": f"Bearer {mesh.token('demo_admin')}"}
    url = f"{mesh.ready['gateway']}/sse"
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        for transport in (streamable_http_client(url, http_client=http), sse_client(url, headers=headers)):
            async with Client(transport, mode="legacy") as client:
                assert len((await client.list_tools()).tools) == 17
                for _ in range(4):
                    found = await client.call_tool("fhirPatientRead", {"id": "FCE57"})
                    assert (found.structured_content or {})["id"] == "FCE57"


@pytest.mark.requirement("SM-6")
async def test_a_refusal_names_the_person_the_action_and_the_target(mesh: Any) -> None:
    async with lake(mesh, "demo_nurse", profile="smedrec") as call:
        with pytest.raises(Failed) as refused:
            await call("fhirResourceDelete", resourceType="Patient", id="FCE57")
        assert refused.value.text.startswith("Forbidden: User ")
        assert refused.value.text.endswith("with roles [Nurse] not authorized to perform 'delete' on Patient/FCE57.")
