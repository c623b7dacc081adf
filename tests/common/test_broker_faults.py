"""What happens to calls when the broker is killed, restarted or frozen (NB-2)."""

from __future__ import annotations

import asyncio
import time

import pytest

from common.mesh_in_a_process import answer_patient, small_mesh
from engines import nats
from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.errors import WardmeshError
from wardmesh_common.station import Hop

pytestmark = pytest.mark.anyio


async def until(condition: object, seconds: float = 60) -> None:
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.requirement("NB-2")
async def test_a_killed_broker_fails_calls_at_once_runs_none_late_and_comes_back_by_itself() -> None:
    performed: list[float] = []
    hold = True

    async def perform(call: Call, hop: Hop) -> Outcome:
        performed.append(hop.remaining())
        while hold:
            await asyncio.sleep(0.01)
        return await answer_patient(call, hop)

    with nats() as server:
        async with small_mesh(server.url, perform) as mesh:
            waiting = asyncio.create_task(mesh.gateway.submit(mesh.call(seconds=60)))
            await until(lambda: performed)
            server.kill()
            started = time.monotonic()
            with pytest.raises(WardmeshError) as lost:
                await waiting
            assert time.monotonic() - started < 10, "at once, not at its deadline"
            assert lost.value.problem.status == 503
            with pytest.raises(WardmeshError):
                await mesh.gateway.submit(mesh.call())
            hold = False
            count = len(performed)
            server.start()
            await until(lambda: all(bus.connected for bus in mesh.buses))
            assert len(performed) == count, "a call was executed after its caller had given up"
            await until(lambda: mesh.performer.in_flight == 0)
            assert (await mesh.gateway.submit(mesh.call())).reply.status == 200


@pytest.mark.requirement("NB-2", "NB-4")
async def test_a_frozen_broker_is_noticed_within_seconds_and_nothing_runs_after_its_deadline() -> None:
    performed: list[float] = []

    async def perform(call: Call, hop: Hop) -> Outcome:
        performed.append(hop.remaining())
        return await answer_patient(call, hop)

    with nats() as server:
        async with small_mesh(server.url, perform) as mesh:
            for _ in range(5):
                assert (await mesh.gateway.submit(mesh.call())).reply.status == 200
            server.freeze()
            started = time.monotonic()
            with pytest.raises(WardmeshError):
                await mesh.gateway.submit(mesh.call(seconds=60))
            assert time.monotonic() - started < 20
            server.thaw()
            await until(lambda: all(bus.connected for bus in mesh.buses), seconds=60)
            assert (await mesh.gateway.submit(mesh.call())).reply.status == 200
            assert all(left > 0 for left in performed)
