"""The agent workflow in a real browser: an agent asks, a person signs in at the hospital, the agent reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser

from mesh.agent import agent
from mesh.chromium import chromium, person

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
CLINICIAN, PATIENT = "local-smart-clinician", "local-smart-patient"
DONE = "Authentication Successful"
LABORATORY = {"category": "laboratory"}


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


def subjects(bundle: dict[str, Any]) -> set[str]:
    found = [entry["resource"] for entry in bundle.get("entry", [])]
    return {resource["subject"]["reference"].rpartition("/")[2] for resource in found if "subject" in resource}


@pytest.mark.requirement("FG-28", "B-8")
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_fg28_from_no_sign_in_to_laboratory_results(mesh: Any, browser: Browser, mode: str) -> None:
    doctor = await person(mesh, browser, "demo_doctor", "dr_jansen")
    async with agent(mesh, "demo_doctor", mode) as mcp:
        await mcp.forget(CLINICIAN)
        status = await mcp.ask("get_auth_status", platform_id=CLINICIAN)
        assert (status["authenticated"], status["has_token"]) == (False, False)
        refused = await mcp.refused("search", platform_id=CLINICIAN, resource_type="Observation", params=LABORATORY)
        assert refused["error"] == "session_error"
        started = await mcp.ask("start_auth", platform_id=CLINICIAN)
        link = started["authorization_url"]
        assert link.startswith(f"{mesh.ready['gateway']}/auth/{CLINICIAN}/login?session=")
        waiting = asyncio.create_task(mcp.wait(CLINICIAN))
        assert await doctor.sign_in(link) == DONE
        assert (await waiting)["success"] is True
        status = await mcp.ask("get_auth_status", platform_id=CLINICIAN)
        assert (status["authenticated"], status["has_token"]) == (True, True)
        bundle = await mcp.ask("search", platform_id=CLINICIAN, resource_type="Observation", params=LABORATORY)
        found = [entry["resource"] for entry in bundle["entry"]]
        assert found
        for resource in found:
            codes = {coding["code"] for category in resource["category"] for coding in category["coding"]}
            assert "laboratory" in codes
        text = "".join(mcp.said)
    assert doctor.titles == ["Sign in", "Sign in to Local Hospital", "Allow access", DONE]
    for secret in ("access_token", "refresh_token", "code_verifier"):
        assert secret not in text


@pytest.mark.requirement("FG-36")
async def test_fg36_a_clinician_reaches_every_record_and_a_patient_the_own_one(mesh: Any, browser: Browser) -> None:
    async with agent(mesh, "demo_doctor") as mcp:
        await mcp.forget(CLINICIAN)
        doctor = await person(mesh, browser, "demo_doctor", "dr_jansen")
        assert await doctor.sign_in((await mcp.ask("start_auth", platform_id=CLINICIAN))["authorization_url"]) == DONE
        assert "user/*.*" in (await mcp.ask("get_auth_status", platform_id=CLINICIAN))["scopes"]
        for identity in ("DP100", "FCE57"):
            read = await mcp.ask("read", platform_id=CLINICIAN, resource_type="Patient", resource_id=identity)
            assert read["id"] == identity
    async with agent(mesh, "demo_patient") as mcp:
        await mcp.forget(PATIENT)
        dana = await person(mesh, browser, "demo_patient", "dana")
        assert await dana.sign_in((await mcp.ask("start_auth", platform_id=PATIENT))["authorization_url"]) == DONE
        scopes = (await mcp.ask("get_auth_status", platform_id=PATIENT))["scopes"]
        assert {"launch/patient", "patient/*.rs"} <= set(scopes)
        found = await mcp.ask("search", platform_id=PATIENT, resource_type="Observation", params=LABORATORY)
        assert subjects(found) == {"DP100"}, found
        own = await mcp.ask("read", platform_id=PATIENT, resource_type="Patient", resource_id="DP100")
        assert own["id"] == "DP100"
        other = await mcp.ask("read", platform_id=PATIENT, resource_type="Patient", resource_id="FCE57")
        assert other["error"] in {"forbidden", "insufficient_scope"}


@pytest.mark.requirement("B-4")
async def test_a_browser_that_is_known_needs_no_second_sign_in_at_our_issuer(mesh: Any, browser: Browser) -> None:
    doctor = await person(mesh, browser, "demo_doctor", "dr_jansen", "FCE57")
    async with agent(mesh, "demo_doctor") as mcp:
        for platform in (CLINICIAN, PATIENT):
            await mcp.forget(platform)
            assert (
                await doctor.sign_in((await mcp.ask("start_auth", platform_id=platform))["authorization_url"]) == DONE
            )
        found = await mcp.ask("search", platform_id=PATIENT, resource_type="Observation", params=LABORATORY)
        assert subjects(found) == {"FCE57"}  # the patient that the clinician chose
    assert doctor.titles == ["Allow access", DONE]


async def test_a_browser_without_an_account_of_ours_signs_in_and_reads_over_rest(mesh: Any, browser: Browser) -> None:
    """FG-11 and FG-14: the cookie alone stands for the sign-in, and only in this browser."""
    gateway = mesh.ready["gateway"]
    frida = await person(mesh, browser, account="frida")
    assert await frida.sign_in(f"{gateway}/auth/{PATIENT}/login") == DONE
    assert frida.titles == ["Sign in to Local Hospital", "Allow access", DONE]
    url = f"{gateway}/api/fhir/{PATIENT}/Observation?category=laboratory"
    answer = await frida.context.request.get(url)
    assert answer.status == 200, await answer.text()
    assert subjects(await answer.json()) == {"FCE57"}
    status = await (await frida.context.request.get(f"{gateway}/auth/status")).json()
    assert status["platforms"][PATIENT]["has_token"] is True
    (cookie,) = [one for one in await frida.context.cookies() if one.get("name") == "app_session"]
    assert (cookie.get("httpOnly"), cookie.get("sameSite")) == (True, "Lax")
    stranger = await person(mesh, browser)
    assert (await stranger.context.request.get(url)).status in {401, 403}


@pytest.mark.requirement("FG-36")
async def test_a_clinician_without_an_account_of_ours_reads_what_the_hospital_grants_and_only_there(
    mesh: Any, browser: Browser
) -> None:
    gateway = mesh.ready["gateway"]
    clinician = await person(mesh, browser, account="dr_jansen")
    assert await clinician.sign_in(f"{gateway}/auth/{CLINICIAN}/login") == DONE
    get = clinician.context.request.get
    for identity in ("DP100", "FCE57"):
        answer = await get(f"{gateway}/api/fhir/{CLINICIAN}/Patient/{identity}")
        assert (answer.status, (await answer.json())["id"]) == (200, identity)
    found = await (await get(f"{gateway}/api/fhir/{CLINICIAN}/Observation?category=laboratory&_count=50")).json()
    assert len(subjects(found)) > 1
    assert (await get(f"{gateway}/api/fhir/store/Patient/DP100")).status == 403
    assert (await get(f"{gateway}/api/fhir/{PATIENT}/Patient/DP100")).status == 401


async def test_the_portal_of_the_hospital_launches_with_its_patient(mesh: Any, browser: Browser) -> None:
    """EHR launch: the hospital says which patient is open, nobody is asked again."""
    clinician = await person(mesh, browser, account="dr_jansen")
    await clinician.open(f"{mesh.ready['hospital']['issuer']}/portal")
    await clinician.page.check('input[value="DP100"]')
    await clinician.page.select_option("#platform", PATIENT)
    await clinician.page.click("button")
    await clinician.page.wait_for_load_state()
    assert await clinician.finish() == DONE
    answer = await clinician.context.request.get(f"{mesh.ready['gateway']}/api/fhir/{PATIENT}/Observation")
    assert answer.status == 200, await answer.text()
    assert subjects(await answer.json()) == {"DP100"}
