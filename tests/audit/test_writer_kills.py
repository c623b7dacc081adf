"""Writers as real processes, killed with SIGKILL: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from audit_world import World, leaves_of, until, world
from engines import Nats, Postgres
from wardmesh_audit.findings import VERIFIED
from wardmesh_audit.jetstream import api
from wardmesh_audit.streams import ACK_WAIT_SECONDS, AUDIT_IN, consumer_config, consumer_of

pytestmark = pytest.mark.anyio

SCRIPT = Path(__file__).parents[1] / "audit_writer_process.py"


def start(w: World, point: str = "none") -> subprocess.Popen[bytes]:
    command = [sys.executable, str(SCRIPT), w.nats.url, w.url("audit_writer"), point, "100"]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(10)
    if process.stdout is not None:
        process.stdout.close()


async def shorter_ack_wait(w: World) -> None:
    """Messages of a killed writer come back after `ack_wait`; most tests do not wait five seconds for that."""
    config = consumer_config() | {"ack_wait": 1_000_000_000}
    body = {"stream_name": AUDIT_IN, "config": config, "action": "update"}
    await api(w.nc, f"CONSUMER.DURABLE.CREATE.{AUDIT_IN}.{consumer_of(0)}", body)


async def assert_clean(w: World, expected: set[bytes]) -> None:
    assert (await w.verify()).exit_code == VERIFIED
    rows = [row["leaf"] for row in await w.query("select leaf from event")]
    assert len(rows) == len(expected)
    assert set(rows) == expected


@pytest.mark.requirement("AU-301", "NB-14")
@pytest.mark.parametrize("point", ["lock", "copy", "commit", "ack"])
async def test_a_writer_killed_at_any_step_loses_and_doubles_nothing(
    broker: Nats, server: Postgres, point: str
) -> None:
    async with world(broker, server) as w:
        await shorter_ack_wait(w)
        lines = leaves_of(2000)
        for i in range(0, 2000, 50):
            await w.send(*lines[i : i + 50])
        process = start(w, point)
        try:
            code = await asyncio.to_thread(process.wait, 30)
            assert code == -signal.SIGKILL, "the process has killed itself at the point"
        finally:
            kill(process)
        written = await w.size()
        assert written == (300 if point == "ack" else 200)
        async with w.writing(), w.publishing():
            await w.wait_signed(2000)
        await assert_clean(w, set(lines))


async def test_what_a_killed_writer_held_is_written_by_another_within_eight_seconds(
    broker: Nats, server: Postgres
) -> None:
    async with world(broker, server) as w:
        lines = leaves_of(1000)
        for i in range(0, 1000, 50):
            await w.send(*lines[i : i + 50])
        process = start(w, "commit")
        try:
            code = await asyncio.to_thread(process.wait, 30)
            assert code == -signal.SIGKILL
        finally:
            kill(process)
        assert await w.size() == 200, "the rest was delivered to the one that is dead"
        async with w.writing(), w.publishing():
            await w.wait_size(1000, 8.0)
            await w.wait_signed(1000)
        await assert_clean(w, set(lines))


async def test_a_writer_that_takes_long_keeps_what_it_works_on(broker: Nats, server: Postgres) -> None:
    """For longer than the consumer waits; then it is written once and has been delivered once."""
    async with world(broker, server) as w:
        gate = await w.connect()
        held = gate.transaction()
        await held.start()
        await gate.execute("select 1 from tree_state for update")
        async with w.writing() as (writer,):
            for line in leaves_of(20):
                await w.send(line)
            await until(lambda: in_flight(w))
            begun = time.monotonic()

            async def over() -> bool:
                return time.monotonic() - begun > ACK_WAIT_SECONDS + 2

            await until(over)
            await held.rollback()
            await w.wait_size(20)
            await until(lambda: settled(w))
            assert writer.state.duplicates == 0
            assert (await consumer(w))["num_redelivered"] == 0
        await gate.close()


async def consumer(w: World) -> dict[str, Any]:
    return await api(w.nc, f"CONSUMER.INFO.{AUDIT_IN}.{consumer_of(0)}")


async def in_flight(w: World) -> bool:
    info = await consumer(w)
    return info["num_ack_pending"] == 20 and not info["num_pending"]


async def settled(w: World) -> bool:
    info = await consumer(w)
    return info["num_ack_pending"] == 0 and not info["num_pending"]


@pytest.mark.requirement("AU-302")
async def test_three_replicas_with_twelve_random_kills_lose_and_double_nothing(broker: Nats, server: Postgres) -> None:
    chance = random.Random(2)
    async with world(broker, server) as w:
        await shorter_ack_wait(w)
        lines = leaves_of(10_000)
        replicas = [start(w) for _ in range(3)]
        try:
            async with w.publishing():
                for number in range(12):
                    for i in range(number * 800, min((number + 1) * 800, 9600), 20):
                        await w.send(*lines[i : i + 20])
                    before, sent = await w.size(), (number + 1) * 800

                    async def moved(before: int = before, sent: int = sent) -> bool:
                        size = await w.size()
                        return size > before or size == sent

                    await until(moved)
                    victim = chance.randrange(3)
                    kill(replicas[victim])
                    replicas[victim] = start(w)
                for i in range(9600, 10_000, 20):
                    await w.send(*lines[i : i + 20])
                await w.wait_signed(10_000, 60)
        finally:
            for replica in replicas:
                kill(replica)
        await assert_clean(w, set(lines))
