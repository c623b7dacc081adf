"""The console over a ledger of three logs: one live stream, one search, one selector, in a real browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from audit_stage import Stage, audit_stage
from audit_world import make_call, make_outcome
from engines import nats, postgres
from gateway.test_console import CONSOLE, page_of, shot
from mesh.chromium import chromium as a_chromium
from wardmesh_common.errors import BadRequest
from wardmesh_gateway import console_logs

pytestmark = pytest.mark.anyio
LOGS = 3
EVENTS = 130
# Which log a patient's events go to is chance: so many patients leave none of the three out.
PATIENTS = 60
MORE = 40


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def stage() -> AsyncIterator[Stage]:
    with nats() as broker, postgres(durable=True) as server:
        async with audit_stage(broker, server, LOGS) as made:
            for number in range(EVENTS):
                patient = f"p{number % PATIENTS}"
                await made.record(make_call(number, patient=patient), *make_outcome(patient).touched)
            await made.settled(30)
            yield made


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with a_chromium() as started:
        yield started


async def counted(stage: Stage, condition: str = "true") -> dict[int, int]:
    rows = await stage.query(f"select log_id, count(*) as n from event where {condition} group by 1 order by 1")
    return {row["log_id"]: row["n"] for row in rows}


async def test_live_rows_of_every_log_arrive_in_one_stream_that_goes_on_where_it_was(
    stage: Stage, chromium: Browser
) -> None:
    assert len(await counted(stage, "event_type = 'access'")) == LOGS, "the stage has events in every log"
    async with page_of(chromium, stage, "auditor") as page:
        await page.goto(f"{CONSOLE}?type=access")
        await expect(page.locator("#state")).to_contain_text("Live")
        await expect(page.locator("#strip")).to_contain_text("in 3 logs")
        before = {await each.get_attribute("id") for each in await page.locator("#rows tr").all()}
        assert {str(name).split("-")[1] for name in before} == {"0", "1", "2"}
        for number in range(MORE):
            call = make_call(1000 + number, patient=f"p{number}")
            await stage.record(call, *make_outcome(f"p{number}").touched)
        await expect(page.locator("#state")).to_contain_text(f"{MORE} new", timeout=15_000)
        names = [str(await each.get_attribute("id")) for each in await page.locator("#rows tr").all()]
        assert len(names) == len(set(names)), "no event is shown twice"
        assert {name.split("-")[1] for name in names if name not in before} == {"0", "1", "2"}
        await shot(page, "live-logs")
        # By keyboard: to the filters, the log is the first of them.
        await page.keyboard.press("/")
        assert await page.evaluate("document.activeElement.name") == "log"
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Apply").press("Enter")
        await expect(page).to_have_url(f"{stage.base}{CONSOLE}?log=1&type=access")
        only = [str(await each.get_attribute("id")) for each in await page.locator("#rows tr").all()]
        assert only and {name.split("-")[1] for name in only} == {"1"}


async def test_a_stream_resumes_in_each_log_where_the_browser_was(stage: Stage) -> None:
    await stage.settled()
    sizes = await counted(stage)
    place = ",".join(f"{log}:{size - 2}" for log, size in sizes.items())
    headers = {"cookie": "app_session=auditor", "last-event-id": place, "accept": "text/event-stream"}
    seen: dict[int, int] = {}
    async with stage.http.get(f"{stage.base}{CONSOLE}/stream", headers=headers) as answer:
        assert answer.status == 200
        async for raw in answer.content:
            line = raw.decode()
            if line.startswith("data: <tr"):
                log, index = line.partition(' id="e-')[2].partition('"')[0].split("-")
                seen.setdefault(int(log), int(index))
            if len(seen) == LOGS:
                break
    assert seen == {log: size - 1 for log, size in sizes.items()}
    for bad in ("0:1,0:2", "zero", "0:1;1:2"):
        async with stage.http.get(f"{stage.base}{CONSOLE}/stream", headers={**headers, "last-event-id": bad}) as answer:
            assert answer.status == 400


async def test_a_search_pages_through_all_logs_once_and_sorts_one_of_them(stage: Stage, chromium: Browser) -> None:
    await stage.settled()  # also what the tests before this one have read
    expected = sum((await counted(stage, "event_type = 'access'")).values())
    async with page_of(chromium, stage, "auditor", viewport={"width": 390, "height": 800}) as page:
        await page.goto(f"{CONSOLE}/events?type=access")
        names: list[str] = []
        while True:
            names += [str(await each.get_attribute("id")) for each in await page.locator("#rows tr").all()]
            onward = page.get_by_role("link", name="Next page")
            if not await onward.count():
                break
            await onward.click()
        assert len(names) == len(set(names)) == expected
        await page.goto(f"{CONSOLE}/events?sort=actor&from=2020-01-01&to=2020-01-02")
        await expect(page.locator("main")).to_contain_text("Sorted: log 0 only")
        await page.goto(f"{CONSOLE}/verification")
        for log in range(LOGS):
            await expect(page.get_by_role("heading", name=f"Log {log}")).to_be_visible()
        await shot(page, "verification-logs-narrow")


def line(log: int, index: int, at: int) -> dict[str, Any]:
    return {"log": log, "index": index, "cursor": f"{log}:{index}", "recorded_at": f"2026-01-01T00:00:{at:02d}Z"}


async def test_pages_over_logs_lose_nothing_and_repeat_nothing_whatever_their_sizes() -> None:
    logs = {0: [line(0, n, n) for n in range(23)], 1: [], 2: [line(2, n, 2 * n) for n in range(7)]}

    async def ask(given: dict[str, str]) -> dict[str, Any]:
        held = logs[int(given["log"])][::-1]
        cursor = given.get("cursor")
        rest = [each for each in held if cursor is None or each["index"] < int(cursor.split(":")[1])]
        limit = int(given["limit"])
        return {"events": rest[:limit], "next": rest[limit - 1]["cursor"] if len(rest) > limit else ""}

    seen: list[str] = []
    given: dict[str, str] = {}
    for _ in range(20):
        found = await console_logs.search(ask, given, [0, 1, 2], 4)
        seen += [each["cursor"] for each in found.events]
        if not found.next:
            break
        given = {"cursor": found.next}
    assert len(seen) == len(set(seen)) == 30
    states = [{"log": log, "size": len(each)} for log, each in logs.items()]
    assert console_logs.start_of(states, [line(0, 30, 0)]) == "0:30,2:6"
    with pytest.raises(BadRequest):
        console_logs.split("1:2,1:3")
