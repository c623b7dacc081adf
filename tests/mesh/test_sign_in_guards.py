"""What must not work, and what must survive: forwarded links, killed replicas, revoked grants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.async_api import Browser

from mesh.agent import agent
from mesh.chromium import chromium, person
from mesh.ledger import events
from mesh.traffic import steady

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
CLINICIAN = "local-smart-clinician"
DONE = "Authentication Successful"


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


async def of_kind(mesh: Any, event: str) -> int:
    return sum(event in str(leaf["data"]) for leaf in await events(mesh))


async def until_more(mesh: Any, event: str, than: int) -> None:
    async with asyncio.timeout(60):
        while await of_kind(mesh, event) <= than:
            await asyncio.sleep(0.2)


async def until_others_run(mesh: Any, *services: str) -> None:
    """Kill every replica of these services; returns when calls go through new ones."""
    before = {service: set(mesh.pids(service)) for service in services}
    for service in services:
        await asyncio.to_thread(mesh.kill, service)
    async with asyncio.timeout(60):
        while any(before[service] & set(mesh.pids(service)) for service in services):
            await asyncio.sleep(0.1)
    await asyncio.to_thread(mesh.settle)
    await steady(mesh.ready["gateway"], "/api/fhir/store/Patient/FCE57", mesh.token("demo_doctor"))


@pytest.mark.requirement("B-4", "X-7")
async def test_a_victim_who_opens_an_attackers_link_is_refused_and_it_is_recorded(mesh: Any, browser: Browser) -> None:
    before = await of_kind(mesh, "security.session_mismatch")
    victim = await person(mesh, browser, "demo_doctor", "dr_jansen")
    async with agent(mesh, "demo_nurse") as attacker, agent(mesh, "demo_doctor") as own:
        for mcp in (attacker, own):
            await mcp.forget(CLINICIAN)
        link = (await attacker.ask("start_auth", platform_id=CLINICIAN))["authorization_url"]
        assert await victim.sign_in(link) == "Session Mismatch"
        assert "Sign in to Local Hospital" not in victim.titles
        for mcp in (attacker, own):
            assert (await mcp.ask("get_auth_status", platform_id=CLINICIAN))["has_token"] is False
    await until_more(mesh, "security.session_mismatch", before)


@pytest.mark.requirement("B-4")
async def test_a_link_works_once_and_not_when_it_was_changed(mesh: Any, browser: Browser) -> None:
    doctor = await person(mesh, browser, "demo_doctor", "dr_jansen")
    async with agent(mesh, "demo_doctor") as mcp:
        await mcp.forget(CLINICIAN)
        link = (await mcp.ask("start_auth", platform_id=CLINICIAN))["authorization_url"]
        assert await doctor.sign_in(link) == DONE
        for stale in (link, link[:-4] + "AAAA"):
            assert await doctor.sign_in(stale) != DONE
            assert doctor.titles[-1] not in {"Sign in to Local Hospital", "Allow access"}


@pytest.mark.requirement("B-2", "FG-33")
async def test_a_sign_in_survives_the_death_of_gateway_and_auth_on_the_way(mesh: Any, browser: Browser) -> None:
    doctor = await person(mesh, browser, "demo_doctor", "dr_jansen")
    async with agent(mesh, "demo_doctor") as mcp:
        await mcp.forget(CLINICIAN)
        link = (await mcp.ask("start_auth", platform_id=CLINICIAN))["authorization_url"]
        await doctor.open(link)
        while "Local Hospital" not in await doctor.page.title():
            assert await doctor.answer()
        await until_others_run(mesh, "gateway", "auth")
        assert await doctor.finish() == DONE
    async with agent(mesh, "demo_doctor") as mcp:
        assert (await mcp.wait(CLINICIAN))["success"] is True
        found = await mcp.ask("read", platform_id=CLINICIAN, resource_type="Patient", resource_id="FCE57")
        assert found["id"] == "FCE57"


async def test_a_revoked_sign_in_is_over_here_and_at_the_hospital(mesh: Any, browser: Browser) -> None:
    doctor = await person(mesh, browser, "demo_doctor", "dr_jansen")
    async with agent(mesh, "demo_doctor") as mcp:
        await mcp.forget(CLINICIAN)
        assert await doctor.sign_in((await mcp.ask("start_auth", platform_id=CLINICIAN))["authorization_url"]) == DONE
        revoked = await mcp.ask("revoke_auth", platform_id=CLINICIAN)
        assert revoked["success"] is True
        assert revoked["token_revoked"] is True
        assert (await mcp.ask("get_auth_status", platform_id=CLINICIAN))["has_token"] is False
        read = await mcp.refused("read", platform_id=CLINICIAN, resource_type="Patient", resource_id="FCE57")
        assert read["error"] == "session_error"


async def test_a_callback_with_a_made_up_state_or_in_another_browser_ends_on_a_page(
    mesh: Any, browser: Browser
) -> None:
    gateway = mesh.ready["gateway"]
    nobody = await person(mesh, browser)
    assert await nobody.sign_in(f"{gateway}/auth/callback?code=x&state={'0' * 48}") == "Invalid State"
    assert await nobody.sign_in(f"{gateway}/auth/callback?state={'0' * 48}") == "Invalid Request"
    async with agent(mesh, "demo_doctor") as mcp:
        await mcp.forget(CLINICIAN)
        started = await mcp.ask("start_auth", platform_id=CLINICIAN)
        doctor = await person(mesh, browser, "demo_doctor", "dr_jansen")
        await doctor.open(started["authorization_url"])
        while "Local Hospital" not in await doctor.page.title():
            assert await doctor.answer()
        stolen = f"{gateway}/auth/callback?code=x&state={started['state']}"
        assert await nobody.sign_in(stolen) == "Session Mismatch"
        assert (await mcp.ask("get_auth_status", platform_id=CLINICIAN))["has_token"] is False


async def test_the_hospital_refuses_and_the_agent_is_told(mesh: Any, browser: Browser) -> None:
    doctor = await person(mesh, browser, "demo_doctor", "dr_jansen")
    async with agent(mesh, "demo_doctor") as mcp:
        await mcp.forget(CLINICIAN)
        await doctor.open((await mcp.ask("start_auth", platform_id=CLINICIAN))["authorization_url"])
        while await doctor.page.title() != "Allow access":
            assert await doctor.answer()
        await doctor.page.click("button[value=deny]")
        await doctor.page.wait_for_load_state()
        assert await doctor.finish() == "Authentication Failed"
        assert (await mcp.ask("get_auth_status", platform_id=CLINICIAN))["has_token"] is False


async def test_our_keys_are_published_where_the_hospital_looks_for_them(mesh: Any) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.get(f"{mesh.ready['gateway']}/.well-known/jwks.json")
    keys = answer.json()["keys"]
    assert {key["alg"] for key in keys} == {"ES384", "RS384"}
    assert not any({"d", "p", "q"} & set(key) for key in keys)


async def test_what_is_asked_of_the_hospital_is_what_fg13_says(mesh: Any) -> None:
    """Without a browser: the redirect that the gateway answers, taken apart."""
    async with httpx.AsyncClient(timeout=60) as http:
        url = f"{mesh.ready['gateway']}/auth/local-smart-patient/login"
        answer = await http.get(url, params={"redirect": "false"})
        asked = answer.json()
        query = {name: values[0] for name, values in parse_qs(urlsplit(asked["authorization_url"]).query).items()}
        again = (await http.get(url, params={"redirect": "false"})).json()
    assert answer.cookies.get("app_session") or http.cookies.get("app_session")
    assert query["response_type"] == "code"
    assert query["client_id"] == mesh.ready["hospital"]["clients"]["public"]
    assert query["redirect_uri"] == f"{mesh.ready['gateway']}/auth/callback"
    assert query["aud"] == mesh.ready["hospital"]["base"]
    assert query["code_challenge_method"] == "S256"
    assert query["state"] == asked["state"]
    assert len(asked["state"]) == 48
    assert set(asked["state"]) <= set("0123456789abcdef")
    assert again["state"] != asked["state"]
    assert "client_secret" not in query
