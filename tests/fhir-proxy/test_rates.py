"""B-16: the published rate holds in every stretch of time, and a platform in trouble costs the others nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import msgspec
import pytest
from aiohttp import web

from wardmesh_common.errors import RateLimited, WardmeshError
from wardmesh_fhir_proxy.lanes import MARGIN_SECONDS, Window

pytestmark = pytest.mark.anyio
PATIENT = b'{"resourceType":"Patient","id":"p1"}'
FHIR = "application/fhir+json"


async def test_b16_the_published_rate_is_kept(bench: Any) -> None:
    bench.describe(rate={"hourly": 3})
    bench.upstream.answer({"resourceType": "Patient", "id": "p1"})
    results = await asyncio.gather(*(bench.perform("read", "Patient", "p1") for _ in range(6)), return_exceptions=True)
    assert len(bench.upstream.requests) == 3
    assert sum(isinstance(r, RateLimited) for r in results) == 3


@pytest.mark.parametrize(("size", "seconds"), [(2.0, 1.0), (0.5, 1.0), (200, 3600.0), (3.7, 1.0)])
def test_no_stretch_of_a_window_ever_holds_more_than_its_size(size: float, seconds: float) -> None:
    now = [0.0]
    window = Window(size, seconds, lambda: now[0])
    sent: list[float] = []
    while len(sent) < 3 * max(1, int(size)):
        while window.wait() == 0:
            window.take()
            sent.append(now[0])
        now[0] += window.wait()
    stretch = max(seconds, seconds / size)
    for start in sent:
        assert sum(start <= at <= start + stretch for at in sent) <= max(1.0, size)
    assert now[0] <= 3 * (stretch + 0.2) + 0.01, "and it is used up"


async def test_b16_a_platform_never_sees_more_than_it_published_in_any_second(bench: Any) -> None:
    """A caller that keeps on asking, on connections that are new and kept, over several seconds."""
    bench.describe(rate={"rps": 4}, max_concurrent=8)
    seen: list[float] = []

    def respond(_: Any) -> web.Response:
        seen.append(time.monotonic())
        return web.Response(body=b'{"resourceType":"Patient","id":"p1"}', content_type="application/fhir+json")

    bench.upstream.respond = respond
    pauses = Pauses()
    watching = asyncio.create_task(pauses.watch())
    started = time.monotonic()
    while time.monotonic() - started < 3.5 or len(seen) < 8:
        calls = (bench.perform("read", "Patient", "p1", seconds=5) for _ in range(6))
        await asyncio.gather(*calls, return_exceptions=True)
    watching.cancel()
    # A machine that was away for longer than the margin has made a call arrive late, not the next one early.
    second = min(1.0, 1.0 + MARGIN_SECONDS - pauses.longest)
    assert max(sum(at <= other < at + second for other in seen) for at in seen) <= 4, pauses.longest


class Pauses:
    """How long this process was away at most while it watched."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            self.longest = max(self.longest, time.monotonic() - began)


async def refuses(_: Any) -> web.Response:
    return web.Response(status=503)


async def fails(_: Any) -> web.Response:
    return web.Response(status=500)


async def throttles(_: Any) -> web.Response:
    return web.Response(status=429, headers={"Retry-After": "1"})


async def breaks(_: Any) -> web.Response:
    return web.Response(body=PATIENT[:20], content_type=FHIR)


async def dawdles(_: Any) -> web.Response:
    await asyncio.sleep(1.5)
    return web.Response(body=PATIENT, content_type=FHIR)


async def hangs(_: Any) -> web.Response:
    await asyncio.sleep(3)
    return web.Response(body=PATIENT, content_type=FHIR)


FAULTS = (refuses, fails, throttles, breaks, dawdles, hangs)
ORDINARY_SECONDS = 0.15  # what a good platform takes
READS = 80
PAUSE_SECONDS = 0.1


async def measured(bench: Any) -> float:
    """p99 of reads at the neighbour, eight at a time, in seconds."""
    took: list[float] = []

    async def reader() -> None:
        for _ in range(READS // 8):
            started = time.perf_counter()
            assert (await bench.perform("read", "Patient", "p1", platform="other")).status == 200
            took.append(time.perf_counter() - started)

    await asyncio.gather(*(reader() for _ in range(8)))
    return sorted(took)[-2]


async def bothering(bench: Any) -> None:
    """Somebody who does not give up: eight calls at a time to the platform in trouble, for ever."""

    async def insisting() -> None:
        while True:
            with contextlib.suppress(WardmeshError):
                await bench.perform("read", "Patient", "p1", seconds=1.0)
            await asyncio.sleep(PAUSE_SECONDS)  # callers and platforms share this one processor

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(insisting())


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", FAULTS)
async def test_b16_a_platform_in_trouble_does_not_slow_its_neighbours(bench: Any, fault: Any) -> None:
    """p99 of the neighbour stays within a tenth; a noisy machine gets some tries at a quiet moment."""
    other = {"id": "other", "name": "Other", "type": "sandbox", "bases": {"patient": f"{bench.upstream.base}/other"}}
    (bench.directory / "other.yaml").write_bytes(msgspec.json.encode(other))
    bench.platforms.reload()

    async def respond(seen: Any) -> web.StreamResponse:
        if "/other/" not in seen.path:
            return await fault(seen)
        await asyncio.sleep(ORDINARY_SECONDS)
        return web.Response(body=PATIENT, content_type=FHIR)

    bench.upstream.respond = respond
    await measured(bench)
    ratios: list[float] = []
    for _ in range(10):
        normal = await measured(bench)
        troubled = asyncio.create_task(bothering(bench))
        try:
            ratios.append(await measured(bench) / normal)
        finally:
            troubled.cancel()
            await asyncio.gather(troubled, return_exceptions=True)
        if ratios[-1] <= 1.1:
            break
    assert min(ratios) <= 1.1, ratios
