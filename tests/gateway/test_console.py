"""The console for compliance in a real browser, over a real ledger: incident, live rows, timeline, review, keys."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from audit_stage import Stage, audit_stage
from audit_world import make_call, make_outcome
from engines import Nats, Postgres, nats, postgres
from wardmesh_audit.derived import publish
from wardmesh_audit.detect import make_alert
from wardmesh_audit.detect_event import Seen
from wardmesh_audit.detect_store import Store
from wardmesh_audit.rules import load_rules
from wardmesh_gateway.console_times import clock, day, moment

pytestmark = pytest.mark.anyio
CONSOLE = "/console/audit"
WRITTEN = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC")
SHOTS = os.environ.get("WARDMESH_SCREENSHOTS", "")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def engines_up() -> Iterator[tuple[Nats, Postgres]]:
    with nats() as broker, postgres(durable=True) as server:
        yield broker, server


@pytest.fixture(scope="module")
async def stage(engines_up: tuple[Nats, Postgres]) -> AsyncIterator[Stage]:
    async with audit_stage(*engines_up) as made:
        for number in range(30):
            patient = f"p{number % 4 + 1}"
            status = 403 if number % 9 == 4 else 200
            await made.record(make_call(number, patient=patient), *make_outcome(patient).touched, status=status)
        await made.settled()
        yield made


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("this machine has no Chromium: the console is not tested in a browser")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        await browser.close()


@asynccontextmanager
async def page_of(chromium: Browser, stage: Stage, who: str, **options: object) -> AsyncIterator[Page]:
    """A page of somebody's session; any error of a script or of the content policy fails the test."""
    context = await chromium.new_context(base_url=stage.base, **options)  # type: ignore[arg-type]
    context.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    if who:
        await context.add_cookies([{"name": "app_session", "value": who, "url": stage.base}])
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    yield page
    await context.close()
    assert not complaints


async def shot(page: Page, name: str) -> None:
    if SHOTS:
        await page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=True)


async def plant(stage: Stage) -> str:
    """An incident as detection leaves it: an alert about an event, and the review it asks for."""
    rows = await stage.query(
        "select seq, patient_ref, actor_id from event where outcome = 'denied' order by seq limit 1"
    )
    alert, review = uuid.uuid4(), uuid.uuid4()
    await stage.query(
        "insert into alert (id, rule, log_id, seq, severity, score, actor_id, patient_ref, facts)"
        " values ($1, 'denied_burst', 0, $2, 'high', 0.9, $3, $4, '{\"denials\": 21, \"minutes\": 5}')",
        alert, rows[0]["seq"], rows[0]["actor_id"], rows[0]["patient_ref"],
    )  # fmt: skip
    await stage.query("insert into review (id, alert_id, kind) values ($1, $2, 'alert')", review, alert)
    return str(review)


async def test_a_browser_without_a_session_is_sent_to_the_sign_in_and_others_are_refused(stage: Stage) -> None:
    async with stage.http.get(stage.base + CONSOLE, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, "/auth/login?next=%2Fconsole%2Faudit")
    for who, status in (("doctor", 403), ("patient", 403), ("nobody", 303), ("auditor", 200)):
        headers = {"cookie": f"app_session={who}"}
        async with stage.http.get(stage.base + CONSOLE, headers=headers, allow_redirects=False) as answer:
            assert answer.status == status, who
            assert "script-src 'self'" in answer.headers.get("Content-Security-Policy", "script-src 'self'")
            if status == 403:
                shown = await answer.text()
                assert "You may not see this" in shown
                assert "Your roles do not allow you to see the events as they happen." in shown
                assert "whoever administers the sign-in" in shown and "no rule allows" not in shown
                assert 'href="/auth/login?again=true&amp;next=%2Fconsole%2Faudit"' in shown


async def test_a_refused_form_says_what_was_refused_in_words(stage: Stage) -> None:
    headers = {"cookie": "app_session=doctor"}
    for view, said in (
        ("reviews", "see the reviews"),
        ("verification", "see how the verification of the ledger stands"),
    ):
        async with stage.http.get(f"{stage.base}{CONSOLE}/{view}", headers=headers) as answer:
            shown = await answer.text()
            assert (answer.status, f"Your roles do not allow you to {said}." in shown) == (403, True), shown
            assert not re.search(r"(read|list|follow)_[a-z]+", shown), "no name of a procedure"


@pytest.mark.parametrize("who", ["auditor", "doctor", ""])
async def test_the_short_address_leads_to_the_console(stage: Stage, who: str) -> None:
    for path in ("/console", "/console/"):
        headers = {"cookie": f"app_session={who}"} if who else {}
        async with stage.http.get(stage.base + path, headers=headers, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, CONSOLE)


async def test_every_time_on_a_page_is_written_alike_and_says_utc(stage: Stage, chromium: Browser) -> None:
    async with page_of(chromium, stage, "auditor") as page:
        for view in ("", "/events", "/verification", "/reviews"):
            await page.goto(f"{CONSOLE}{view}")
            await expect(
                page.locator("time").first if not view.endswith("reviews") else page.locator("h1")
            ).to_be_visible()
            for text in await page.locator("time").all_inner_texts():
                assert WRITTEN.fullmatch(text), text
            without = re.sub(WRITTEN, "", await page.locator("main").inner_text())
            assert not re.search(r"\d\d:\d\d:\d\d", re.sub(r"(?s)test/audit/.*", "", without)), without


def test_a_moment_of_another_zone_is_told_in_utc_and_what_is_none_is_shown_as_it_is() -> None:
    assert ">2026-11-21 13:33:31 UTC<" in moment("2026-11-21T15:33:31.123456+02:00")
    assert ">2026-11-21 13:33:31 UTC<" in moment("2026-11-21T13:33:31Z") and ">never<" in moment(None)
    assert ">&lt;soon&gt;<" in moment("<soon>")
    assert (day("2026-11-21T23:30:00-02:00"), ">01:30:00 UTC<" in clock("2026-11-21T23:30:00-02:00")) == (
        "2026-11-22",
        True,
    )


async def test_the_planted_incident_shows_and_is_reviewed_with_evidence(stage: Stage, chromium: Browser) -> None:
    review = await plant(stage)
    async with page_of(chromium, stage, "compliance") as page:
        await page.goto(CONSOLE)
        await expect(page.locator("#strip")).to_contain_text("Waiting reviews")
        await page.get_by_role("link", name="Reviews").click()
        entry = page.locator(f"#r-{review}")
        await expect(entry).to_contain_text("denied_burst")
        await expect(entry).to_contain_text("21")
        await shot(page, "reviews")
        await entry.get_by_label("Outcome").select_option("inappropriate")
        await entry.get_by_label("Evidence").fill("asked the ward <b>twice</b>")
        await entry.get_by_role("button", name="Close the review").click()
        await expect(page.locator(f"#r-{review}")).to_have_count(0)
        await page.goto(f"{CONSOLE}/reviews?status=closed")
        await expect(page.locator(f"#r-{review}")).to_contain_text("asked the ward <b>twice</b>")
    rows = await stage.query("select outcome, reviewer from review where id = $1", uuid.UUID(review))
    assert tuple(rows[0]) == ("inappropriate", "i:compliance")


async def test_an_alert_says_the_title_of_its_rule_and_how_severe_it_is(stage: Stage, chromium: Browser) -> None:
    about = (
        await stage.query(
            "select seq, event_id, encode(patient_ref, 'hex') as whom, occurred_at as at from event"
            " where event_type = 'access' and request_id = 'call-2'"
        )
    )[0]
    rule = next(rule for rule in load_rules() if rule.name == "vip")
    event = Seen(
        log=0, seq=about["seq"], event_id=about["event_id"], at=about["at"], stored=about["at"], tenant="default",
        type="access", phase="outcome", outcome="success", actor="issuer|doctor", actor_type="practitioner",
        patient=about["whom"], purpose="", relationship="", break_glass=False,
    )  # fmt: skip
    alert = make_alert(rule, event, {"list": "vip"}, f"vip {uuid.uuid4()}", datetime.now(UTC))
    title = "A patient on the VIP list was looked at"
    async with page_of(chromium, stage, "auditor") as page:
        await page.goto(f"{CONSOLE}?type=alert")
        await expect(page.locator("#state")).to_contain_text("Live")
        await publish(stage.audit_bus.nc, 0, alert.event)
        row = page.locator("#rows tr").first
        await expect(row).to_contain_text(title)
        await expect(row).to_contain_text("high severity")
        await expect(page.locator(".names")).to_contain_text("5d1c3023:, is a short hash of the issuer")
        await shot(page, "alert-live")
        conn = await asyncpg.connect(stage.pg.url(stage.database))
        try:
            await Store(conn, (0,)).add(alert)
        finally:
            await conn.close()
        await page.goto(f"{CONSOLE}/reviews")
        entry = page.locator("article").filter(has_text=title)
        await expect(entry).to_contain_text("high severity")
        await shot(page, "alert-review")
        await page.goto(f"{CONSOLE}/patient")
        await page.get_by_label("Patient id").fill("p3")
        await page.get_by_role("button", name="Show the history").click()
        line = page.locator(".timeline li").filter(has_text=title)
        await expect(line).to_contain_text("high severity")
        await shot(page, "alert-timeline")
    answer = await stage.ask("auditor", "/v1/reviews")
    assert [each["facts"] for each in answer.json["reviews"] if each["title"] == title] == [{"list": "vip"}]


async def test_a_patient_sees_who_read_the_record_and_no_alerts(stage: Stage) -> None:
    headers = {"cookie": "app_session=patient", "origin": stage.base}
    async with stage.http.get(f"{stage.base}{CONSOLE}/patient", headers=headers) as answer:
        token = re.search(r'name="csrf" value="([0-9a-f]+)"', await answer.text())
    assert token is not None
    form = {"csrf": token[1], "patient": "p1"}
    async with stage.http.post(f"{stage.base}{CONSOLE}/patient", data=form, headers=headers) as answer:
        shown = await answer.text()
        assert (answer.status, "accesses by" in shown, "Alert:" in shown) == (200, True, False), shown


async def test_a_filter_for_a_class_that_does_not_exist_is_refused_with_those_that_do(stage: Stage) -> None:
    for address in (f"{CONSOLE}/events", CONSOLE, "/v1/events"):
        headers = {"cookie": "app_session=auditor"}
        async with stage.http.get(f"{stage.base}{address}?type=zz", headers=headers) as answer:
            said = await answer.text()
            assert (answer.status, "Invalid type: one of access, write, search" in said) == (400, True), address
            assert "malformed" in said and "zz" not in said
    async with stage.http.get(f"{stage.base}/v1/events?type=malformed", headers=headers) as answer:
        assert answer.status == 200


async def test_a_form_from_elsewhere_changes_nothing(stage: Stage) -> None:
    review = await plant(stage)
    address = f"{stage.base}{CONSOLE}/reviews/{review}"
    form = {"outcome": "appropriate", "evidence": "x", "csrf": "0" * 64}
    cookie = {"cookie": "app_session=compliance"}
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": stage.base}):
        async with stage.http.post(address, data=form, headers={**cookie, **headers}) as answer:
            assert answer.status == 403
    async with stage.http.post(f"{stage.base}/v1/reviews/{review}", json=form, headers=cookie) as answer:
        assert answer.status == 403, "a cookie alone is not enough for the API either"
    rows = await stage.query("select status from review where id = $1", uuid.UUID(review))
    assert rows[0]["status"] == "open"


async def test_live_rows_arrive_pause_and_go_on(stage: Stage, chromium: Browser) -> None:
    await stage.settled()  # also what the tests before this one have read
    async with page_of(chromium, stage, "auditor") as page:
        await page.goto(f"{CONSOLE}?type=access")
        state = page.locator("#state")
        await expect(state).to_contain_text("Live")
        before = await page.locator("#rows tr").count()
        await stage.record(make_call(500, patient="p1"), *make_outcome("p1").touched)
        await expect(page.locator("#rows tr")).to_have_count(before + 1)
        await expect(page.locator("#rows tr").first).to_contain_text("issuer|doctor")
        await shot(page, "live")
        await page.keyboard.press("p")
        await expect(state).to_contain_text("Paused")
        await stage.record(make_call(501, patient="p1"), *make_outcome("p1").touched)
        await expect(state).to_contain_text("1 waiting")
        await expect(page.locator("#rows tr")).to_have_count(before + 1)
        await page.keyboard.press("p")
        await expect(page.locator("#rows tr")).to_have_count(before + 2)


async def test_the_timeline_of_a_patient_and_no_id_in_an_address(stage: Stage, chromium: Browser) -> None:
    await stage.settled()
    async with page_of(chromium, stage, "auditor", color_scheme="dark") as page:
        addresses: list[str] = []
        page.on("request", lambda request: addresses.append(request.url))
        await page.goto(f"{CONSOLE}/patient")
        await page.get_by_label("Patient id").fill("p2")
        await page.get_by_role("button", name="Show the history").click()
        lines = page.locator(".timeline li")
        expected = await stage.query(
            "select count(*) as n from event where event_type = 'access'"
            " and patient_ref = (select patient_ref from event where request_id = 'call-1')"
        )
        await expect(lines).to_have_count(expected[0]["n"])
        await expect(lines.first).to_contain_text("proven")
        await shot(page, "timeline-dark")
        assert not [address for address in addresses if "p2" in address]


async def test_search_filters_and_pages_and_an_event_has_its_proof(stage: Stage, chromium: Browser) -> None:
    async with page_of(chromium, stage, "auditor", viewport={"width": 390, "height": 800}) as page:
        await page.goto(f"{CONSOLE}/events")
        await page.locator("select[name=outcome]").select_option("denied")
        await page.get_by_role("button", name="Apply").click()
        await expect(page).to_have_url(f"{stage.base}{CONSOLE}/events?outcome=denied")
        badges = page.locator("#rows .badge")
        assert set(await badges.all_inner_texts()) == {"denied"}
        wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0, "a narrow window does not scroll sideways"
        await shot(page, "search-narrow")
        await page.locator("#rows tr a").first.click()
        await expect(page.locator("pre")).to_contain_text("specversion")
        proof = await page.get_by_role("link", name="Download the proof").get_attribute("href")
        answer = await page.request.get(str(proof))
        assert (await answer.text()).startswith("c2sp.org/tlog-proof@v1")


async def test_verification_shows_the_last_checkpoint_and_the_last_run(stage: Stage, chromium: Browser) -> None:
    await stage.query(
        "insert into verification_run (id, log_id, started_at, ended_at, size, exit_code)"
        " values (gen_random_uuid(), 0, now(), now(), 5, 0)"
    )
    async with page_of(chromium, stage, "auditor") as page:
        await page.goto(f"{CONSOLE}/verification")
        await expect(page.locator("main")).to_contain_text("test/audit/0")
        await expect(page.locator(".badge.success")).to_contain_text("verified")
        await expect(page.locator("main")).to_contain_text("Last cosigned checkpoint")
        await shot(page, "verification")


async def test_everything_can_be_reached_by_keyboard(stage: Stage, chromium: Browser) -> None:
    async with page_of(chromium, stage, "auditor") as page:
        await page.goto(f"{CONSOLE}/events?limit=20")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "Skip to content"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "content"
        await page.keyboard.press("/")
        assert await page.evaluate("document.activeElement.tagName") in ("INPUT", "SELECT")
        await page.evaluate("document.activeElement.blur()")
        await page.keyboard.press("j")
        first = await page.evaluate("document.activeElement.closest('tr').id")
        await page.keyboard.press("j")
        second = await page.evaluate("document.activeElement.closest('tr').id")
        await page.keyboard.press("k")
        assert first != second
        assert await page.evaluate("document.activeElement.closest('tr').id") == first
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Event")
