"""A Bundle of 20 MB passes whole, in pieces that leave broker limits and memory of the stations alone."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from mesh.healthlake import until
from mesh.ledger import events
from mesh.platform_server import LARGE_BYTES, Platform

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]

MEGABYTE = 1024 * 1024
# A gateway only passes pieces on; fhir-proxy looks into the Bundle and so holds it, but not many times over.
GROWTH = {"gateway": 16 * MEGABYTE, "fhir-proxy": 4 * LARGE_BYTES}


def resident(pids: list[int]) -> int:
    """Bytes in memory, the largest of these processes."""
    found = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        found = max(found, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:")))
    return found


class Gauge:
    """Watches the resident memory of services until told to stop; `growth` is the peak above the beginning."""

    def __init__(self, mesh: Any) -> None:
        self._pids = {name: mesh.pids(name) for name in GROWTH}
        self._begun = {name: resident(pids) for name, pids in self._pids.items()}
        self._peak = dict(self._begun)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            for name, pids in self._pids.items():
                self._peak[name] = max(self._peak[name], resident(pids))

    def growth(self) -> dict[str, int]:
        self._done.set()
        self._thread.join(10)
        return {name: self._peak[name] - self._begun[name] for name in GROWTH}


async def until_counted(mesh: Any, request_id: str, count: int) -> None:
    """Wait until the ledger says that this answer held so many resources: a long list fills several events."""

    async def counted() -> bool:
        held = sum(event["data"]["resource"]["count"] for event in await events(mesh, request_id))
        assert held <= count
        return held == count

    await until(counted)


@pytest.mark.requirement("NB-11")
@pytest.mark.parametrize("face", ["/api/fhir", "/fhir"])
async def test_a_bundle_of_20_mb_passes_whole_with_bounded_memory(mesh: Any, platform: Platform, face: str) -> None:
    assert len(platform.large) > LARGE_BYTES
    headers = {"authorization": f"Bearer {mesh.token('demo_doctor')}"}
    async with httpx.AsyncClient(base_url=mesh.ready["gateway"], headers=headers, timeout=60) as http:
        await http.get(f"{face}/own/Patient/p1")  # connections and caches are there
        gauge = Gauge(mesh)
        answer = await http.get(f"{face}/own/Observation?patient=p1")
        growth = gauge.growth()
    assert answer.status_code == 200
    sent, got = json.loads(platform.large), answer.json()
    assert [e["resource"] for e in got["entry"]] == [e["resource"] for e in sent["entry"]]
    assert all(growth[name] < limit for name, limit in GROWTH.items()), growth
    await until_counted(mesh, answer.headers["x-request-id"], len(sent["entry"]))


@pytest.mark.requirement("NB-11")
async def test_the_broker_never_sees_a_message_above_its_modest_limit(mesh: Any) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        facts = (await http.get(f"{mesh.ready['nats_monitor']}/varz")).json()
    assert facts["max_payload"] <= 8 * MEGABYTE


@pytest.mark.requirement("NB-11")
async def test_slow_readers_of_large_answers_do_not_fill_the_gateway(mesh: Any, platform: Platform) -> None:
    headers = {"authorization": f"Bearer {mesh.token('demo_doctor')}"}
    async with httpx.AsyncClient(base_url=mesh.ready["gateway"], headers=headers, timeout=60) as http:
        gauge = Gauge(mesh)

        async def read_slowly() -> str:
            digest = hashlib.sha256()
            async with http.stream("GET", "/fhir/own/Observation?patient=p1") as answer:
                async for piece in answer.aiter_raw(256 * 1024):
                    digest.update(piece)
                    await asyncio.sleep(0.01)  # the reader's own pace
            return digest.hexdigest()

        digests = await asyncio.gather(*(read_slowly() for _ in range(3)))
        growth = gauge.growth()
    assert len(set(digests)) == 1
    assert growth["gateway"] < 2 * GROWTH["gateway"], growth
