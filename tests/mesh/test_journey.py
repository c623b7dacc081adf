"""The same record through REST, FHIR and MCP: one decision, one record each, whichever replica is asked."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from mesh.ledger import events, until_event
from mesh.mcp_call import call_tool
from mesh.platform_server import Platform

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]

FULL_NUMBER = "999-00-1111"
PERSONS = {"demo_doctor": "full", "demo_nurse": "masked"}


class Faces:
    """The three faces of one mesh; every request goes to the next gateway replica."""

    def __init__(self, mesh: Any, http: httpx.AsyncClient) -> None:
        self._mesh = mesh
        self._http = http
        self._bases = itertools.cycle(mesh.ready["gateways"])

    async def get(self, path: str, person: str = "demo_doctor", **headers: str) -> httpx.Response:
        token = self._mesh.token(person)
        return await self._http.get(next(self._bases) + path, headers={"authorization": f"Bearer {token}", **headers})

    async def mcp(self, person: str, name: str, arguments: dict[str, Any], agent: str) -> str:
        """The answer's text, "refused" when there is no data."""
        url = next(self._bases) + "/mcp"
        result = await call_tool(self._http, url, self._mesh.token(person), name, arguments, agent=agent)
        return "refused" if result.refused else result.text


@pytest.fixture
async def faces(mesh: Any) -> AsyncIterator[Faces]:
    async with httpx.AsyncClient(timeout=60) as http:
        yield Faces(mesh, http)


async def of_agent(mesh: Any, agent: str) -> dict[str, Any]:
    """The one event of calls by this MCP client; that it came for the first time is another one."""

    def its(event: dict[str, Any]) -> bool:
        return agent in json.dumps(event["data"]["actor"]) and event["data"].get("event") != "agent.register"

    async with asyncio.timeout(60):
        while not (found := [event for event in await events(mesh) if its(event)]):
            await asyncio.sleep(0.2)
    assert len(found) == 1
    return found[0]


def facts(event: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """Who (the person, also behind an agent), what, on which platform, decided how and with which outcome."""
    data = event["data"]
    person = data["actor"].get("on_behalf_of", data["actor"])
    policy = data.get("policy", {})
    what = f"{data['action']} {data['resource']['type']}"
    return person["id"], what, data["resource"]["platform"], policy.get("decision", ""), data["outcome"]["code"]


@pytest.mark.requirement("AR-1", "AR-3", "AR-10")
@pytest.mark.parametrize("person", PERSONS)
async def test_the_three_faces_show_the_same_record_the_same_way_and_record_it_alike(
    mesh: Any, faces: Faces, person: str
) -> None:
    agent = f"journey-{secrets.token_hex(4)}"
    rest = await faces.get("/api/fhir/own/Patient/p1", person)
    fhir = await faces.get("/fhir/own/Patient/p1", person)
    arguments = {"platform_id": "own", "resource_type": "Patient", "resource_id": "p1", "view": "full"}
    text = await faces.mcp(person, "read", arguments, agent)
    assert (rest.status_code, fhir.status_code) == (200, 200)
    assert json.loads(text) == rest.json() == fhir.json()
    assert (FULL_NUMBER in rest.text) == (PERSONS[person] == "full")
    found = [await until_event(mesh, answer.headers["x-request-id"]) for answer in (rest, fhir)]
    assert [len(each) for each in found] == [1, 1]
    all_three = [found[0][0], found[1][0], await of_agent(mesh, agent)]
    assert len({facts(event) for event in all_three}) == 1
    who, what, platform, decision, outcome = facts(all_three[0])
    assert who.endswith(f":{person}")
    assert (what, platform, decision, outcome) == ("R Patient", "own", "allow", "success")
    assert [event["data"]["request"]["face"] for event in all_three] == ["rest", "fhir", "mcp"]
    assert [event["data"]["actor"]["type"] for event in all_three] == ["practitioner", "practitioner", "ai_agent"]
    rules = {(e["data"]["policy"]["rule"], tuple(e["data"]["policy"]["obligations"])) for e in all_three}
    assert len(rules) == 1
    assert bool(rules.pop()[1]) == (PERSONS[person] == "masked")


@pytest.mark.requirement("AR-1", "AR-3", "AR-10")
async def test_a_refusal_is_the_same_through_every_face_and_each_one_is_recorded_with_its_reason(
    mesh: Any, faces: Faces, platform: Platform
) -> None:
    agent = f"journey-{secrets.token_hex(4)}"
    before = platform.paths.count("/Condition")
    rest = await faces.get("/api/fhir/own/Condition?patient=p1", "demo_billing")
    fhir = await faces.get("/fhir/own/Condition?patient=p1", "demo_billing")
    arguments = {"platform_id": "own", "resource_type": "Condition", "params": {"patient": "p1"}}
    assert await faces.mcp("demo_billing", "search", arguments, agent) == "refused"
    assert (rest.status_code, fhir.status_code) == (403, 403)
    assert fhir.json()["issue"][0]["diagnostics"] == rest.json()["detail"]
    assert platform.paths.count("/Condition") == before, "the platform was not even asked"
    recorded = [(await until_event(mesh, answer.headers["x-request-id"]))[0] for answer in (rest, fhir)]
    recorded.append(await of_agent(mesh, agent))
    assert len({facts(event) for event in recorded}) == 1
    who, what, _, decision, outcome = facts(recorded[0])
    assert who.endswith(":demo_billing")
    assert (what, decision, outcome) == ("search Condition", "deny", "denied")
    assert {event["data"]["outcome"]["reason"] for event in recorded} == {"forbidden"}


@pytest.mark.requirement("AR-3", "NB-9")
async def test_a_call_whose_caller_hung_up_is_recorded_as_abandoned(
    mesh: Any, faces: Faces, platform: Platform
) -> None:
    trace = secrets.token_hex(16)
    platform.hold.clear()
    platform.paths.clear()
    call = asyncio.create_task(faces.get("/fhir/own/Patient/slow", traceparent=f"00-{trace}-{trace[:16]}-01"))
    try:
        await platform.asked_for("/Patient/slow")
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        async with asyncio.timeout(60):
            while not (found := [event for event in await events(mesh) if trace in event.get("traceparent", "")]):
                await asyncio.sleep(0.2)
    finally:
        platform.hold.set()
    assert len(found) == 1
    who, what, _, decision, outcome = facts(found[0])
    assert who.endswith(":demo_doctor")
    assert (what, decision, outcome) == ("R Patient", "allow", "error")
    assert found[0]["data"]["outcome"]["reason"] == "abandoned"


@pytest.mark.requirement("AR-3")
async def test_a_write_is_recorded_before_and_after_it_happens(mesh: Any, faces: Faces) -> None:
    token = mesh.token("demo_admin")
    async with httpx.AsyncClient(base_url=mesh.ready["gateway"], timeout=60) as http:
        created = await http.post(
            "/api/fhir/store/Patient",
            json={"resourceType": "Patient", "gender": "other"},
            headers={"authorization": f"Bearer {token}"},
        )
    assert created.status_code == 201, created.text
    name = created.headers["x-request-id"]
    async with asyncio.timeout(60):
        while len(found := await events(mesh, name)) < 2:
            await asyncio.sleep(0.1)
    assert sorted(event["data"]["phase"] for event in found) == ["intent", "outcome"], (
        "in whichever order two writers took them"
    )
