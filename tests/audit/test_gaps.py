"""The producers' counters: what was counted and is not in the ledger is found, reported and recorded once."""

from __future__ import annotations

import json
import uuid

import pytest

from audit_world import World, leaves_of, make_call, make_outcome, recorder_on, until, world
from engines import Nats, Postgres
from wardmesh_audit import gaps
from wardmesh_audit.app import connector
from wardmesh_audit.watch import Watch
from wardmesh_common.bus import Bus
from wardmesh_common.record_keys import KeyRing
from wardmesh_common.record_nats import BusPublisher
from wardmesh_common.recorder import Recorder
from wardmesh_common.stamp import Stamp

pytestmark = pytest.mark.anyio


async def found(w: World, **options: float) -> list[gaps.Gap]:
    conn = await w.connect("audit_report")
    try:
        return await gaps.find(conn, **{"silent_seconds": 0, "missing_seconds": 0, **options})
    finally:
        await conn.close()


def watch(w: World, **options: float) -> Watch:
    return Watch(w.nc, connector(w.url("audit_detect")), **{"ping_seconds": 0.2, "missing_seconds": 0, **options})


@pytest.mark.requirement("AU-112")
async def test_a_producer_that_stops_in_order_leaves_no_gap(broker: Nats, server: Postgres) -> None:
    async with world(broker, server) as w, w.writing():
        async with recorder_on(w) as recorder:
            for number in range(30):
                await recorder.outcome(make_call(number), make_outcome("p1"))
        await w.wait_size(32)
        assert await found(w) == []
        (row,) = await w.query("select last_seq, seen, closed from producer_seq")
        assert tuple(row) == (31, 32, True)


@pytest.mark.requirement("AU-113")
async def test_missing_numbers_and_the_open_epoch_of_a_killed_producer_are_reported(
    broker: Nats, server: Postgres
) -> None:
    stamp = Stamp("test", "test-dead")
    lines = leaves_of(40, stamp=stamp)
    async with world(broker, server) as w, w.writing():
        await w.send(*lines[:10])
        await w.send(*lines[13:20], *lines[21:30])  # 10 to 12, 20 and all from 30 on died with the process
        await w.wait_size(26)
        missing, open_epoch = await found(w)
        assert (missing.kind, missing.ranges, missing.producer) == ("missing", ((10, 12), (20, 20)), "test-dead")
        assert (open_epoch.kind, open_epoch.last_seq, open_epoch.epoch) == ("open", 29, stamp.epoch)
        assert await found(w, silent_seconds=120, missing_seconds=60) == []
        # Late is not lost.
        await w.send(*lines[10:13], lines[20])
        await w.wait_size(30)
        assert [gap.kind for gap in await found(w)] == ["open"]


@pytest.mark.requirement("AU-113")
async def test_a_number_that_came_twice_is_no_dense_counter(broker: Nats, server: Postgres) -> None:
    stamp = Stamp("test", "test-twice")
    lines = leaves_of(5, stamp=stamp)
    stamp.next_seq = 3
    lines += leaves_of(1, stamp=stamp)
    async with world(broker, server) as w, w.writing():
        await w.send(*lines)
        await w.wait_size(6)
        assert next((gap.kind, gap.ranges) for gap in await found(w)) == ("repeated", ((3, 3),))


@pytest.mark.requirement("AU-113")
async def test_a_silent_producer_that_answers_is_not_lost_and_a_lost_one_is_recorded_once_by_all_replicas(
    broker: Nats, server: Postgres
) -> None:
    async with world(broker, server) as w, w.writing(), recorder_on(w) as recorder:
        await recorder.outcome(make_call(), make_outcome("p1"))
        dead = Stamp("test", "test-dead")
        await w.send(*leaves_of(3, stamp=dead))
        await w.wait_size(5)
        conn = await w.connect("audit_detect")
        try:
            replicas = [watch(w, silent_seconds=0.15, ping_seconds=0.8) for _ in range(3)]

            async def recorded() -> bool:
                for replica in replicas:
                    await replica.turn(conn)
                return await w.size() > 5

            await until(recorded)
            for replica in replicas:
                await replica.turn(conn)
        finally:
            await conn.close()
        rows = await w.query("select leaf from event where epoch = $1", uuid.UUID(int=0))
        facts = [json.loads(row["leaf"])["data"] for row in rows]
        lost = [fact["facts"]["producer"] for fact in facts if fact["outcome"]["reason"] == "producer_lost"]
        assert lost == ["test-dead"]


@pytest.mark.requirement("AU-113")
async def test_a_counter_at_its_limit_does_not_stop_the_writer(broker: Nats, server: Postgres) -> None:
    stamp = Stamp("test", "test-huge")
    stamp.next_seq = 2**63 - 1
    async with world(broker, server) as w, w.writing():
        await w.send(*leaves_of(1, stamp=stamp))
        await w.wait_size(1)
        assert (await found(w))[0].ranges == ((0, 2**63 - 2),)


@pytest.mark.requirement("AU-113")
async def test_the_queue_of_a_killed_recorder_shows_as_an_open_epoch(broker: Nats, server: Postgres) -> None:
    async with world(broker, server) as w, w.writing():
        bus = await Bus.connect("fhir-proxy", w.nats.url, "")

        async def no_keys(_question: object) -> None:
            raise AssertionError("no key is needed")

        recorder = Recorder(BusPublisher(bus), KeyRing(no_keys), service="fhir-proxy", instance=bus.instance)  # type: ignore[arg-type]
        await recorder.status("probe")
        await bus.close()  # as if killed: no closing counter, and what is queued from here on is gone
        await w.wait_size(2)
        (gap,) = await found(w)
        assert (gap.kind, gap.producer, gap.last_seq) == ("open", bus.instance, 1)
