"""A stranger's MCP client signs in: 401, metadata, registration, PKCE and resource, tools, and step-up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mesh.oauth_client import Kept, connected, preregistered
from wardmesh_cli import identity
from wardmesh_cli.engines import PEOPLE

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
DOCTOR = next(person for person in identity.people(PEOPLE) if person.name == "demo_doctor")


async def read(client: Any, mesh: Any) -> dict[str, Any]:
    arguments = {"platform_id": mesh.ready["store_platform"], "resource_type": "Patient", "resource_id": "FCE57"}
    result = await client.call_tool("read", arguments)
    assert not result.is_error, result
    return json.loads(result.content[0].text)


@pytest.mark.requirement("B-8", "B-9")
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
@pytest.mark.parametrize("known", [False, True], ids=["registers-itself", "is-known"])
async def test_the_sdk_signs_in_and_reads(mesh: Any, mode: str, known: bool) -> None:
    kept = Kept(client=preregistered(identity.CLIENT_ID) if known else None)
    async with connected(mesh.ready["mcp"], DOCTOR, kept, mode=mode) as client:
        assert {"read", "search", "start_auth"} <= {tool.name for tool in (await client.list_tools()).tools}
        assert (await read(client, mesh))["id"] == "FCE57"
    first = [request for request, status in kept.requests if status == 401]
    assert first == ["POST /mcp"]
    paths = [request for request, _ in kept.requests]
    assert "GET /.well-known/oauth-protected-resource/mcp" in paths
    assert ("POST /reg" in paths) == (not known)
    (asked,) = kept.asked
    assert asked["resource"] == mesh.ready["audience"]
    assert asked["code_challenge_method"] == "S256"
    assert kept.client is not None
    assert (kept.client.client_id == identity.CLIENT_ID) == known


async def test_a_change_makes_the_client_ask_for_more_and_then_succeeds(mesh: Any) -> None:
    """Step-up (OA-6): the first token reads only; the 403 of a change leads to a second sign-in with the union."""
    kept = Kept(client=preregistered(identity.CLIENT_ID))
    patient = {"resourceType": "Patient", "name": [{"family": "Stepup"}]}
    arguments = {"platform_id": mesh.ready["store_platform"], "resource_type": "Patient", "resource": patient}
    async with connected(mesh.ready["mcp"], DOCTOR, kept, mode="2026-07-28") as client:
        await read(client, mesh)
        assert kept.tokens is not None
        assert "fhir.write" not in str(kept.tokens.scope).split()
        await client.call_tool("create", arguments)
    assert [status for _, status in kept.requests].count(403) == 1
    assert len(kept.asked) == 2
    assert {"fhir.read", "fhir.write"} <= set(str(kept.tokens.scope).split())
