"""A platform's process that is killed in the middle of an answer, and a caller who goes away: what the record says."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest

from engines import nats
from proxy_mesh import Mesh, proxy_mesh
from wardmesh_common.transfer import CHUNK_BYTES, WINDOW, TransferBroken

pytestmark = pytest.mark.anyio
ASKED: dict[str, Any] = {"headers": {"accept": "application/octet-stream"}}
ENOUGH = 4 << 20


class Platform:
    """The process; `base` is its address."""

    def __init__(self) -> None:
        program = Path(__file__).parents[1] / "endless_platform.py"
        self.process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.base = f"http://127.0.0.1:{int(self.process.stdout.readline())}/r4"
        self.requests: list[object] = []

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def server() -> Iterator[Platform]:
    platform = Platform()
    yield platform
    platform.kill()


@pytest.fixture(scope="module")
def nats_url() -> Iterator[str]:
    with nats() as running:
        yield running.url


@pytest.fixture
async def mesh(server: Platform, tmp_path: Path, nats_url: str) -> AsyncGenerator[Mesh]:
    async with proxy_mesh(server, tmp_path, nats_url) as made:
        yield made


async def second_record(mesh: Mesh) -> tuple[str, int]:
    """Reason and bytes of what follows the record that the answer was given."""
    async with asyncio.timeout(60):
        while len(mesh.records.outcomes) < 2:
            await asyncio.sleep(0.05)
    first, second = mesh.records.outcomes
    assert (first.status, first.problem, first.broken_after) == (200, None, -1)
    assert second.problem is not None
    return second.problem.code, second.broken_after


@pytest.mark.requirement("PX-6")
async def test_px6_a_platform_that_is_killed_in_mid_answer_is_in_the_record(mesh: Mesh, server: Platform) -> None:
    delivery = await mesh.send("read", "Binary", "b1", **ASKED)
    assert len(mesh.records.outcomes) == 1, "recorded before the first piece"
    got = 0
    with pytest.raises(TransferBroken):
        async for part in delivery.stream():
            got += len(part)
            if got > ENOUGH:
                server.kill()
    reason, left = await second_record(mesh)
    assert (reason, left) == ("upstream_unavailable", got), "everything that had left arrived"


@pytest.mark.requirement("PX-6")
async def test_px6_a_caller_who_goes_away_is_in_the_record(mesh: Mesh, server: Platform) -> None:
    delivery = await mesh.send("read", "Binary", "b1", **ASKED)
    parts, got = delivery.stream(), 0
    async for part in parts:
        got += len(part)
        if got > ENOUGH:
            break
    await parts.aclose()
    reason, left = await second_record(mesh)
    assert reason == "abandoned"
    assert got <= left <= got + (WINDOW + 1) * CHUNK_BYTES
