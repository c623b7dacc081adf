"""A mesh with one replica of everything: an orderly restart of any service under load fails no call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mesh.ledger import until_recorded
from mesh.traffic import Traffic, steady

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]

PATH = "/api/fhir/store/Patient/FCE57"
SOON_SECONDS = 15.0  # a call has 30


@pytest.mark.requirement("AR-10", "NB-8", "DP-208")
@pytest.mark.parametrize("service", ["auth", "policy", "fhir-proxy", "audit", "gateway", "fhir-store"])
async def test_the_successor_takes_over_before_the_only_replica_ends(lone_mesh: Any, service: str) -> None:
    lone_mesh.settle()
    await steady(lone_mesh.ready["gateway"], PATH, lone_mesh.token("demo_doctor"))
    before = lone_mesh.pids(service)
    async with Traffic(lone_mesh.ready["gateway"], PATH, lone_mesh.token("demo_doctor")) as traffic:
        await traffic.good(20)
        await asyncio.to_thread(lone_mesh.restart, service)
        await traffic.good(20)
    assert set(traffic.seen.statuses) == {200}, traffic.seen.words
    assert traffic.seen.slowest < SOON_SECONDS
    after = lone_mesh.pids(service)
    assert len(after) == 1
    assert after != before
    assert not await until_recorded(lone_mesh, traffic.seen.good_ids)


@pytest.mark.requirement("AR-10")
async def test_connections_wait_for_a_gateway_that_was_killed_and_is_started_again(lone_mesh: Any) -> None:
    lone_mesh.settle()
    await steady(lone_mesh.ready["gateway"], PATH, lone_mesh.token("demo_doctor"))
    async with Traffic(lone_mesh.ready["gateway"], PATH, lone_mesh.token("demo_doctor")) as traffic:
        await traffic.good(20)
        lone_mesh.kill("gateway")
        await traffic.good(20)
    # Those it held in mid-call break; no later one is refused.
    assert set(traffic.seen.statuses) <= {0, 200}
    assert traffic.seen.statuses[0] <= traffic.callers
