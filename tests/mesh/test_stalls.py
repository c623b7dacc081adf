"""Engines that are full or frozen instead of dead: refusals in time, no data without record, recovery by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import nats
import pytest

from mesh.ledger import until_recorded
from mesh.traffic import Traffic, ask

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]

# A platform of our own, not the store: that one has its data in the PostgreSQL that gets frozen.
PATH = "/api/fhir/own/Patient/p1"
SECRET = b"999-00-1111"
# Refusals come long before the deadline of a call, 30 s; a machine may be slow and have other work.
SOON_SECONDS = 15.0
FROZEN_SECONDS = 12.0


@contextlib.contextmanager
def frozen(mesh: Any, name: str) -> Any:
    mesh.freeze(name)
    try:
        yield
    finally:
        mesh.thaw(name)


@contextlib.asynccontextmanager
async def full_stream(mesh: Any) -> AsyncIterator[None]:
    """AUDIT_IN takes nothing more while the block runs: its limit is what it holds already."""
    seed = (Path(mesh.ready["secrets"]) / "nats-operations.seed").read_text()
    nc = await nats.connect(mesh.ready["nats"], nkeys_seed_str=seed, inbox_prefix=b"_INBOX_operations.mesh")

    async def api(verb: str, body: Any = None) -> dict[str, Any]:
        data = json.dumps(body).encode() if body is not None else b""
        answer = json.loads((await nc.request(f"$JS.API.STREAM.{verb}.AUDIT_IN", data, timeout=60)).data)
        assert "error" not in answer, answer["error"]
        return answer

    try:
        config = (await api("INFO"))["config"]
        size = (await api("INFO"))["state"]["bytes"]
        await api("UPDATE", {**config, "max_bytes": size})
        try:
            yield
        finally:
            await api("UPDATE", config)
    finally:
        await nc.close()


async def until_good(mesh: Any, token: str, seconds: float = 60.0) -> None:
    """The mesh answers again, by itself."""
    async with asyncio.timeout(seconds):
        while (await answer_of(mesh, token))[0] != 200:
            await asyncio.sleep(0.1)


async def answer_of(mesh: Any, token: str) -> tuple[int, dict[str, str], bytes]:
    return await ask(mesh.ready["gateway"], PATH, token)


async def reads(mesh: Any, token: str, count: int, check: Callable[[int, bytes], None]) -> float:
    """Ask so many times at once; the slowest answer's seconds."""

    async def one() -> float:
        begun = time.monotonic()
        status, _, body = await answer_of(mesh, token)
        check(status, body)
        return time.monotonic() - begun

    return max(await asyncio.gather(*(one() for _ in range(count))))


@pytest.mark.requirement("AR-3", "AU-105", "NB-15", "X-34")
async def test_a_full_stream_means_503_without_data_and_room_means_answers_again(mesh: Any) -> None:
    token = mesh.token("demo_doctor")
    mesh.settle()
    await until_good(mesh, token)

    def withheld(status: int, body: bytes) -> None:
        assert status == 503, body
        assert SECRET not in body
        assert b"record" in body.lower() or b"audit" in body.lower(), body

    async with full_stream(mesh):
        assert await reads(mesh, token, 8, withheld) < SOON_SECONDS
    await until_good(mesh, token)
    assert mesh.audit_verify().returncode == 0


@pytest.mark.requirement("AR-3", "NB-2")
async def test_a_frozen_broker_means_503_without_data_and_recovery_by_itself(mesh: Any) -> None:
    token = mesh.token("demo_doctor")
    mesh.settle()
    await until_good(mesh, token)

    def withheld(status: int, body: bytes) -> None:
        assert status in (502, 503, 504), status
        assert SECRET not in body

    with frozen(mesh, "nats"):
        assert await reads(mesh, token, 8, withheld) < SOON_SECONDS
    await until_good(mesh, token)
    assert mesh.audit_verify().returncode == 0


@pytest.mark.requirement("AR-3", "AU-105", "X-26")
async def test_calls_go_on_while_the_ledger_is_frozen_and_no_record_is_lost(mesh: Any) -> None:
    token = mesh.token("demo_doctor")
    mesh.settle()
    await until_good(mesh, token)
    async with Traffic(mesh.ready["gateway"], PATH, token, pause_seconds=0.05) as traffic:
        await traffic.good(10)
        with frozen(mesh, "postgres"):
            until = time.monotonic() + FROZEN_SECONDS
            while time.monotonic() < until:
                await traffic.good(10)
        await traffic.good(10)
    assert set(traffic.seen.statuses) == {200}, traffic.seen.words
    assert traffic.seen.slowest < FROZEN_SECONDS - 2, "no call has waited for the ledger"
    assert not await until_recorded(mesh, traffic.seen.good_ids, seconds=60)
    assert mesh.audit_verify().returncode == 0


@pytest.mark.requirement("AR-4", "AR-7")
async def test_a_frozen_decision_point_is_a_refusal_well_within_the_deadline(mesh: Any) -> None:
    token = mesh.token("demo_nurse")
    mesh.settle()
    await until_good(mesh, token)
    path = "/api/fhir/own/Observation/{}"
    with frozen(mesh, "cerbos"):
        begun = time.monotonic()
        answers = await asyncio.gather(
            *(ask(mesh.ready["gateway"], path.format(f"frozen{number}"), token) for number in range(8))
        )
        assert time.monotonic() - begun < SOON_SECONDS
    assert {status for status, _, _ in answers} == {503}
    assert all(SECRET not in body for _, _, body in answers)
    refused = {headers["x-request-id"] for _, headers, _ in answers}
    assert not await until_recorded(mesh, refused, outcome="error")
    await until_good(mesh, token)
