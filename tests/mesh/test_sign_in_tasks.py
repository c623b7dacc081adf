"""Tasks, sessions and handles of MCP clients over two replicas: any of them answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from mesh.agent import agent
from mesh.mcp_call import PROTOCOL
from mesh.web import web

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
PATIENT, CLINICIAN = "local-smart-patient", "local-smart-clinician"
DONE = "Authentication Successful"
CAPABILITIES = {"elicitation": {"url": {}}, "extensions": {"io.modelcontextprotocol/tasks": {}}}
ACCEPT = "application/json, text/event-stream"
CALLS, AT_ONCE = 1000, 20


def last_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    lines = [line[5:] for line in answer.text.splitlines() if line.startswith("data:")]
    return json.loads(lines[-1] if lines else answer.text)["result"]


async def modern(http: httpx.AsyncClient, mesh: Any, method: str, target: str, /, **params: Any) -> dict[str, Any]:
    meta = {
        "io.modelcontextprotocol/protocolVersion": PROTOCOL,
        "io.modelcontextprotocol/clientCapabilities": CAPABILITIES,
        "io.modelcontextprotocol/clientInfo": {"name": "mesh-tests", "version": "1.0.0"},
    }
    headers = {"MCP-Protocol-Version": PROTOCOL, "Mcp-Method": method, "Mcp-Name": target, "Accept": ACCEPT}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    return last_of(await http.post(mesh.ready["mcp"], json=body, headers=headers))


def matched(bundle: dict[str, Any]) -> int:
    """Members of the compartment; what they refer to comes along beside the count."""
    return sum(entry.get("search", {}).get("mode") == "match" for entry in bundle["entry"])


async def begun(http: httpx.AsyncClient, mesh: Any, tool: str) -> str:
    arguments = {"platform_id": PATIENT}
    task = await modern(http, mesh, "tools/call", tool, name=tool, arguments=arguments)
    assert task["resultType"] == "task", task
    return task["taskId"]


async def test_a_sign_in_is_a_task_that_every_replica_knows_and_that_can_be_called_off(mesh: Any) -> None:
    headers = {"authorization": f"Bearer {mesh.token('demo_patient')}"}
    async with (
        agent(mesh, "demo_patient") as mcp,
        web(mesh, name="demo_patient", account="dana") as dana,
        httpx.AsyncClient(timeout=60, headers=headers) as http,
    ):
        await mcp.forget(PATIENT)
        asked = await begun(http, mesh, "start_auth")
        waited = await begun(http, mesh, "wait_for_auth")
        for _ in range(4):  # in turns of the balancer
            seen = await modern(http, mesh, "tasks/get", asked, taskId=asked)
            assert seen["status"] == "input_required"
            assert (await modern(http, mesh, "tasks/get", waited, taskId=waited))["status"] == "working"
        assert await dana.sign_in(seen["inputRequests"]["sign_in"]["params"]["url"]) == DONE
        for task in (asked, waited, asked, waited):
            ended = await modern(http, mesh, "tasks/get", task, taskId=task)
            assert (ended["status"], ended["result"]["structuredContent"]["success"]) == ("completed", True)
        again = await begun(http, mesh, "start_auth")
        seen = await modern(http, mesh, "tasks/get", again, taskId=again)
        await modern(http, mesh, "tasks/cancel", again, taskId=again)
        assert (await modern(http, mesh, "tasks/get", again, taskId=again))["status"] == "cancelled"
        assert await dana.sign_in(seen["inputRequests"]["sign_in"]["params"]["url"]) == "Invalid State"
        assert (await mcp.ask("get_auth_status", platform_id=PATIENT))["has_token"] is True
        await mcp.forget(PATIENT)


@pytest.mark.requirement("B-2", "X-25")
async def test_a_thousand_calls_of_one_session_are_served_by_whichever_replica_is_asked(mesh: Any) -> None:
    headers = {"authorization": f"Bearer {mesh.token('demo_doctor')}", "accept": ACCEPT}
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=0)  # every call may meet another replica
    async with httpx.AsyncClient(timeout=60, headers=headers, limits=limits) as http:
        info = {"clientInfo": {"name": "mesh-tests", "version": "1"}, "capabilities": {}}
        hello = {"protocolVersion": "2025-11-25", **info}
        first = await http.post(
            mesh.ready["mcp"], json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}
        )
        session = {"mcp-session-id": first.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
        params = {"name": "list_platforms", "arguments": {}}
        turns = asyncio.Semaphore(AT_ONCE)

        async def call(number: int) -> str:
            body = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
            async with turns:
                return last_of(await http.post(mesh.ready["mcp"], json=body, headers=session))["content"][0]["text"]

        said = await asyncio.gather(*(call(number) for number in range(1, CALLS + 1)))
    assert len(said) == CALLS
    assert len(set(said)) == 1


@pytest.mark.requirement("FG-26")
async def test_fg26_what_the_gateway_offers_beyond_the_list(mesh: Any) -> None:
    store = mesh.ready["store_platform"]
    async with agent(mesh, "demo_doctor") as mcp:
        own = {name: schema for name, schema in (await mcp.tools()).items() if "platform_id" in schema["properties"]}
        assert {"count", "get_next_page", "patch", "search", "start_auth"} <= set(own)
        assert not [name for name, schema in own.items() if "auth_handle" not in schema["properties"]]
        of_patient = {"platform_id": store, "resource_type": "Observation", "params": {"patient": "FCE57"}}
        counted = await mcp.ask("count", **of_patient)
        assert (set(counted), counted["resource_type"]) == ({"resource_type", "total"}, "Observation")
        page = await mcp.ask("search", **of_patient, limit=2, sort=["date"], elements=["status"])
        (following,) = [link["url"] for link in page["link"] if link["relation"] == "next"]
        more = await mcp.ask("get_next_page", platform_id=store, url=following)
        first, second = ({entry["resource"]["id"] for entry in found["entry"]} for found in (page, more))
        assert (len(first), len(second), first & second) == (2, 2, set())
        foreign = await mcp.ask(
            "get_next_page", platform_id=store, url="https://elsewhere.test/fhir/Observation?_cursor=x"
        )
        assert foreign["error"] in {"validation_error", "forbidden"}
        with_subject = await mcp.ask("search", **of_patient, limit=1, include=["Observation:subject"])
        assert {entry["resource"]["resourceType"] for entry in with_subject["entry"]} == {"Observation", "Patient"}
        back = await mcp.ask(
            "search",
            platform_id=store,
            resource_type="Patient",
            params={"_id": "FCE57"},
            revinclude=["Observation:subject"],
        )
        assert {"Patient", "Observation"} <= {entry["resource"]["resourceType"] for entry in back["entry"]}
        assert (await mcp.ask("search", **of_patient, limit=51))["error"] == "validation_error"
        everything = {
            "platform_id": store,
            "resource_type": "Patient",
            "resource_id": "FCE57",
            "operation": "$everything",
        }
        assert matched(await mcp.ask("execute_operation", **everything)) == 10
        most = await mcp.ask("execute_operation", **everything, params={"_count": 500})
        assert 10 < matched(most) <= 50
        made = await mcp.ask("create", platform_id=store, resource_type="Patient", resource={"resourceType": "Patient"})
        target = {"platform_id": store, "resource_type": "Patient", "resource_id": made["id"]}
        await mcp.ask("patch", **target, fields={"gender": "other"})
        assert (await mcp.ask("read", **target))["gender"] == "other"


@pytest.mark.requirement("FG-26")
async def test_fg26_a_handle_stands_for_who_began_the_sign_in_at_that_platform_only(mesh: Any) -> None:
    async with agent(mesh, "demo_patient") as mcp, web(mesh, name="demo_patient", account="dana") as dana:
        await mcp.forget(PATIENT)
        started = await mcp.ask("start_auth", platform_id=PATIENT)
        assert await dana.sign_in(started["authorization_url"]) == DONE
        handle = started["auth_handle"]
        async with httpx.AsyncClient(timeout=60, base_url=mesh.ready["gateway"]) as nobody:

            async def status(platform: str, value: str) -> dict[str, Any]:
                arguments = {"platform_id": platform, "auth_handle": value}
                return (await nobody.post("/v1/tools/get_auth_status", json=arguments)).json()

            assert (await status(PATIENT, handle))["has_token"] is True
            middle = len(handle) // 2
            changed = handle[:middle] + ("A" if handle[middle] != "A" else "B") + handle[middle + 1 :]
            for platform, value in ((CLINICIAN, handle), (PATIENT, changed), (PATIENT, "made-up")):
                assert (await status(platform, value))["error"] == "invalid_auth_handle"
        await mcp.forget(PATIENT)
