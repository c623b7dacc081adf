"""The console for compliance on the running mesh: people sign in through the real page and see what really happens."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, Page, expect

from mesh.chromium import Person, chromium, person
from mesh.healthlake import until
from mesh.ledger import place_of
from wardmesh_cli.directory import LISTED_PATIENT

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
CONSOLE = "/console/audit"
DENIALS = 24  # the rule fires at 20 in five minutes
ALERT_MS = 60_000


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as started:
        yield started


async def console(mesh: Any, browser: Browser, name: str) -> Person:
    """A person who has opened the console and answered what was asked first."""
    someone = await person(mesh, browser, name)
    await someone.sign_in(mesh.ready["gateway"] + CONSOLE)
    return someone


async def shot(page: Page, name: str) -> None:
    """For people who want to look: WARDMESH_TEST_PICTURES names a directory."""
    if folder := os.environ.get("WARDMESH_TEST_PICTURES", ""):
        await page.screenshot(path=Path(folder) / f"console-{name}.png", full_page=True)


def calls_of(mesh: Any, name: str) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {mesh.token(name)}"}
    return httpx.AsyncClient(base_url=mesh.ready["gateway"], headers=headers, timeout=60)


async def a_patient(mesh: Any) -> str:
    async with calls_of(mesh, "demo_doctor") as doctor:
        found = (await doctor.get(f"/fhir/{mesh.ready['store_platform']}/Patient?_count=1")).json()
    return found["entry"][0]["resource"]["id"]


async def test_an_auditor_signs_in_and_sees_a_call_made_meanwhile_and_the_history_of_its_patient(
    mesh: Any, browser: Browser
) -> None:
    identity = await a_patient(mesh)
    auditor = await console(mesh, browser, "demo_auditor")
    page = auditor.page
    assert "Sign in" in auditor.titles
    await expect(page).to_have_url(mesh.ready["gateway"] + CONSOLE)
    await page.goto(f"{mesh.ready['gateway']}{CONSOLE}?type=access&outcome=success")
    await expect(page.locator("#state")).to_contain_text("Live")
    before = set(await page.locator("#rows tr").evaluate_all("rows => rows.map(row => row.id)"))
    # The page may hold other calls of the same person, or get them late: this one is known by its place in the ledger.
    async with calls_of(mesh, "demo_doctor") as doctor:
        answer = await doctor.get(f"/fhir/{mesh.ready['store_platform']}/Patient/{identity}")
        assert answer.status_code == 200
    name = "e-{}-{}".format(*await place_of(mesh, answer.headers["x-request-id"]))
    await expect(page.locator(f"#{name}")).to_contain_text("demo_doctor")
    assert name not in before
    assert identity not in await page.locator("#rows").inner_text(), "an auditor sees pseudonyms"
    await shot(page, "live")
    await page.goto(f"{mesh.ready['gateway']}{CONSOLE}/patient")
    await page.get_by_label("Patient id").fill(identity)
    await page.get_by_role("button", name="Show the history").click()
    await expect(page.locator(".timeline li").filter(has_text="demo_doctor").first).to_be_visible()
    await shot(page, "timeline")


async def test_the_auditor_sees_that_the_ledger_was_verified_and_who_cosigned_it(mesh: Any, browser: Browser) -> None:
    async def verified() -> subprocess.CompletedProcess[str] | None:
        """The witness follows the log: for a moment it may not have cosigned the newest checkpoint."""
        done = await asyncio.to_thread(mesh.audit, "verify", "--against", "witness")
        assert done.returncode != 1, done.stdout + done.stderr
        return done if done.returncode == 0 else None

    done = await until(verified)
    assert done.stderr == ""
    size = int(re.findall(r"tree size (\d+)", done.stdout)[0])
    auditor = await console(mesh, browser, "demo_auditor")
    page = auditor.page
    await page.goto(f"{mesh.ready['gateway']}{CONSOLE}/verification")
    await expect(page.locator(".badge.success")).to_have_text("verified")
    main = page.locator("main")
    await expect(main).to_contain_text(f"{size:,} events")
    await expect(main).to_contain_text("local/witness")
    cosigned = re.search(r"Last cosigned checkpoint\s*size ([\d,]+)", await main.inner_text())
    assert cosigned is not None and int(cosigned[1].replace(",", "")) >= size
    await shot(page, "verification")


async def test_a_nurse_who_opens_the_record_of_a_vip_is_in_the_review_queue(mesh: Any, browser: Browser) -> None:
    """The demo's incident: an ordinary call that policy allows; detection knows the list and who treats whom."""
    path = f"/fhir/{mesh.ready['store_platform']}/Patient/{LISTED_PATIENT}"
    for person_, status in (("demo_doctor", 200), ("demo_nurse", 200)):
        async with calls_of(mesh, person_) as caller:
            assert (await caller.get(path)).status_code == status
    compliance = await console(mesh, browser, "demo_compliance")
    page = compliance.page
    address = f"{mesh.ready['gateway']}{CONSOLE}/reviews"
    about_nurse = page.locator("[id^=r-]").filter(has_text="demo_nurse")
    titles = ("A patient on the VIP list was looked at", "Treatment was claimed without a treatment relationship")

    async def rules() -> set[str]:
        await page.goto(address)
        return set(await about_nurse.locator("h2").all_inner_texts())

    async with asyncio.timeout(ALERT_MS / 1000):
        while not {f"{title} high severity" for title in titles} <= await rules():
            await asyncio.sleep(0.5)
    assert not await page.locator("[id^=r-]").filter(has_text="no_relationship").filter(has_text="demo_doctor").count()
    assert LISTED_PATIENT not in await page.content(), "a pseudonym stands for the patient"
    await shot(page, "incident")
    await page.emulate_media(color_scheme="dark")
    await page.set_viewport_size({"width": 390, "height": 800})
    wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide == 0, "a narrow window does not scroll sideways"
    await shot(page, "incident-dark-narrow")
    await about_nurse.filter(has_text="vip").first.get_by_role("link", name=re.compile("^[0-9]+:[0-9]+$")).click()
    await expect(page.locator("pre")).to_contain_text('"purpose_of_use": "TREAT"')
    await page.goto(f"{mesh.ready['gateway']}/docs/detection")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Detection")
    await shot(page, "docs-dark-narrow")


async def test_a_burst_of_refusals_becomes_a_review_that_compliance_closes_and_an_auditor_may_not(
    mesh: Any, browser: Browser
) -> None:
    identity = await a_patient(mesh)
    async with calls_of(mesh, "demo_reception") as reception:
        path = f"/fhir/{mesh.ready['store_platform']}/Condition?patient={identity}"
        answers = await asyncio.gather(*(reception.get(path) for _ in range(DENIALS)))
    assert {answer.status_code for answer in answers} == {403}
    compliance = await console(mesh, browser, "demo_compliance")
    page = compliance.page
    entry = page.locator("[id^=r-]").filter(has_text="denied_burst").filter(has_text="demo_reception").first

    async def listed() -> bool:
        await page.goto(f"{mesh.ready['gateway']}{CONSOLE}/reviews")
        return bool(await entry.count())

    async with asyncio.timeout(ALERT_MS / 1000):
        while not await listed():
            await asyncio.sleep(0.5)
    number = await entry.get_attribute("id")
    await shot(page, "reviews")
    await entry.get_by_label("Outcome").select_option("appropriate")
    await entry.get_by_label("Evidence").fill("a form that asks again and again")
    await entry.get_by_role("button", name="Close the review").click()
    await expect(page.locator(f"#{number}")).to_have_count(0)
    await page.goto(f"{mesh.ready['gateway']}{CONSOLE}/reviews?status=closed")
    await expect(page.locator(f"#{number}")).to_contain_text("a form that asks again and again")


async def test_a_nurse_is_refused_after_the_sign_in(mesh: Any, browser: Browser) -> None:
    nurse = await console(mesh, browser, "demo_nurse")
    assert "Sign in" in nurse.titles
    await expect(nurse.page.locator("body")).to_contain_text("You may not see this")
    await expect(nurse.page.locator("#rows")).to_have_count(0)
    await shot(nurse.page, "nurse")
