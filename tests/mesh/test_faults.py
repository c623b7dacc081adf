"""Every service and every engine is killed under load: no hang, no data without record, recovery by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mesh.ledger import until_recorded
from mesh.traffic import CALM_SECONDS, Traffic, steady

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]

PATH = "/api/fhir/store/Patient/FCE57"
DEADLINE_SECONDS = 33.0


@pytest.mark.requirement("AR-3", "AR-4", "AR-10", "NB-2", "B-18")
@pytest.mark.parametrize(
    "victim", ["gateway", "auth", "policy", "fhir-proxy", "audit", "fhir-store", "nats", "postgres", "cerbos", "idp"]
)
async def test_a_killed_process_means_answers_or_refusals_but_no_hang_and_no_lost_record(
    mesh: Any, victim: str
) -> None:
    mesh.settle()
    token = mesh.ready["people"]["demo_doctor"]["token"]
    await steady(mesh.ready["gateway"], PATH, token)
    async with Traffic(mesh.ready["gateway"], PATH, token) as traffic:
        await traffic.good(20)
        mesh.kill(victim)
        await asyncio.sleep(1.0)
        await traffic.good(40)
    seen = traffic.seen
    assert seen.slowest < DEADLINE_SECONDS
    assert set(seen.statuses) <= {0, 200, 502, 503, 504}, seen.words
    if victim != "gateway":
        assert seen.statuses[0] == 0, "the gateway answered every connection"
    assert not await until_recorded(mesh, seen.good_ids)
    assert mesh.audit_verify().returncode == 0


@pytest.mark.requirement("AR-10", "NB-8", "DP-208")
@pytest.mark.parametrize("service", ["auth", "policy", "fhir-proxy", "audit", "gateway"])
async def test_a_rolling_restart_under_load_fails_no_call(mesh: Any, service: str) -> None:
    mesh.settle()
    token = mesh.ready["people"]["demo_doctor"]["token"]
    await steady(mesh.ready["gateway"], PATH, token, calm_seconds=CALM_SECONDS)
    async with Traffic(mesh.ready["gateway"], PATH, token) as traffic:
        await traffic.good(20)
        await asyncio.to_thread(mesh.restart, service)
        await traffic.good(20)
    assert set(traffic.seen.statuses) == {200}, traffic.seen.words
    assert not await until_recorded(mesh, traffic.seen.good_ids)
