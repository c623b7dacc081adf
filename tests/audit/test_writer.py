"""The writer against real engines: duplicates, conflicts, bad input, replicas, kills of the database and the broker."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit_world import (
    World,
    cancel,
    leaves_of,
    lost_connections_apart,
    make_call,
    make_outcome,
    recorder_on,
    until,
    world,
)
from engines import Nats, Postgres, nats, postgres
from wardmesh_audit.envelope import Row, instant, rows_of
from wardmesh_audit.findings import VERIFIED
from wardmesh_audit.jetstream import api, message_at
from wardmesh_audit.ledger import Appended, Ledger
from wardmesh_audit.merkle import CompactRange, leaf_hash
from wardmesh_audit.puller import Puller
from wardmesh_audit.streams import AUDIT_IN
from wardmesh_common.errors import AuditUnavailable
from wardmesh_common.recorder import Recorder
from wardmesh_common.stamp import Stamp, uuid7

pytestmark = pytest.mark.anyio


def ids(lines: list[bytes]) -> set[str]:
    return {json.loads(line)["id"] for line in lines}


async def assert_clean(w: World, acknowledged: set[str] | None = None) -> None:
    """`verify` is content, no id is there twice and nothing that was acknowledged is missing."""
    assert (await w.verify()).exit_code == VERIFIED
    rows = [str(row["event_id"]) for row in await w.query("select event_id from event")]
    assert len(rows) == len(set(rows))
    if acknowledged is not None:
        assert set(rows) == acknowledged


@pytest.fixture
async def ledger(broker: Nats, server: Postgres):
    async with world(broker, server) as w:
        yield w


@pytest.mark.requirement("AU-204")
async def test_replayed_and_shuffled_envelopes_append_nothing(ledger: World) -> None:
    lines = leaves_of(100)
    envelopes = [lines[i : i + 10] for i in range(0, 100, 10)]
    async with ledger.writing() as (writer,), ledger.publishing():
        for number, envelope in enumerate(envelopes):
            await ledger.send(*envelope, msg_id=f"first.{number}")
        await ledger.wait_size(100)
        random.Random(3).shuffle(envelopes)
        for number, envelope in enumerate(envelopes):
            await ledger.send(*reversed(envelope), msg_id=f"replay.{number}")
        await until(lambda: _seen(writer.state.duplicates >= 100))
        await ledger.wait_signed(100)
    assert await ledger.size() == 100
    await assert_clean(ledger, ids(lines))


async def _seen(done: bool) -> bool:
    return done


@pytest.mark.requirement("AU-306")
async def test_the_same_id_with_other_bytes_is_kept_and_raised(ledger: World) -> None:
    (first,) = leaves_of(1)
    other = first.replace(b'"probe"', b'"forged"')
    async with ledger.writing(), ledger.publishing():
        await ledger.send(first)
        await ledger.wait_size(1)
        await ledger.send(other)
        await ledger.wait_size(2)
        await until(lambda: _seen(bool(ledger.statuses)))
        # Redelivery of the same conflict is no second incident.
        message = await message_at(ledger.nc, AUDIT_IN, 2)
        rows = rows_of(AUDIT_IN, 2, await _stored_at(ledger, 2), message.data)
        done = await _append(ledger, rows)
        await ledger.wait_signed(2)
    assert ledger.statuses == [("id_conflict", {"stream_seq": 2})]
    assert (done.rows, done.conflicts) == (0, ())
    stored = await ledger.query("select event_type, leaf from event order by seq")
    assert [row["event_type"] for row in stored] == ["audit_status", "malformed"]
    assert stored[1]["leaf"] == other
    await assert_clean(ledger)


async def _stored_at(w: World, seq: int) -> Any:
    answer = await api(w.nc, f"STREAM.MSG.GET.{AUDIT_IN}", {"seq": seq})
    return datetime.fromisoformat(answer["message"]["time"][:26].rstrip("Z")).replace(tzinfo=UTC)


async def _append(w: World, rows: list[Row]) -> Appended:
    conn = await w.connect("audit_writer")
    try:
        return await Ledger(conn, AUDIT_IN).append(rows)
    finally:
        await conn.close()


async def test_two_conflicting_lines_in_one_message_are_both_kept(ledger: World) -> None:
    (first,) = leaves_of(1)
    received = instant(time.time_ns())
    body = b"\n".join([first, first.replace(b'"probe"', b'"forged"'), first])
    done = await _append(ledger, rows_of(AUDIT_IN, 7, received, body))
    assert (done.rows, done.duplicates, done.conflicts) == (2, 1, (7,))
    again = await _append(ledger, rows_of(AUDIT_IN, 7, received, body))
    assert (again.rows, again.conflicts) == (0, ())


async def test_an_id_that_was_squatted_on_purpose_does_not_block(ledger: World) -> None:
    received = instant(time.time_ns())
    (malformed,) = rows_of(AUDIT_IN, 9, received, b"not json")
    (lawful,) = leaves_of(1)
    event = json.loads(lawful)
    squatter = lawful.replace(event["id"].encode(), str(malformed.event_id).encode())
    assert (await _append(ledger, rows_of(AUDIT_IN, 8, received, squatter))).rows == 1
    done = await _append(ledger, [malformed])
    assert done.rows == 1
    assert (await _append(ledger, [malformed])).rows == 0


BAD = (
    b"",
    b"{}",
    b"[1,2]",
    b"\x00\xff\xfe",
    b'{"specversion":"1.0"}',
    b"not json at all",
    b'{"data":' + b"[" * 5000,
)


@pytest.mark.requirement("AU-307")
async def test_malformed_and_oversize_lines_are_kept_beside_their_valid_neighbours(ledger: World) -> None:
    good = leaves_of(8)
    event = json.loads(good[7])
    nul = json.dumps(event | {"tenant": "a\x00b", "id": uuid7(1, os.urandom(10))}).encode()
    long_name = json.dumps(event | {"tenant": "x" * 5000, "id": uuid7(2, os.urandom(10))}).encode()
    odd_time = json.dumps(event | {"time": "0001-01-01T00:00:00+14:00", "id": uuid7(3, os.urandom(10))}).encode()
    oversize = b'{"x":"' + b"y" * 70_000 + b'"}'
    bad = [line for line in (*BAD, nul, long_name, odd_time, oversize) if line]
    async with ledger.writing() as (writer,), ledger.publishing():
        await ledger.send(good[0], *bad, *good[1:7])
        await ledger.send(b"")
        await ledger.send(good[7])
        await ledger.wait_size(8 + len(bad) + 1)
        await ledger.wait_signed(8 + len(bad) + 1)
        await ledger.send(*bad)  # in another place: other rows, no conflict, no loop
        await ledger.wait_size(8 + 2 * len(bad) + 1)
        await ledger.wait_signed(8 + 2 * len(bad) + 1)
        assert writer.state.failures == 0
    rows = await ledger.query("select event_type, leaf from event")
    assert {row["leaf"] for row in rows if row["event_type"] == "audit_status"} == set(good)
    kept = {row["leaf"] for row in rows if row["event_type"] == "malformed"}
    assert {line for line in bad if line != oversize} <= kept
    raw = await ledger.query("select distinct raw from malformed_payload")
    assert [row["raw"] for row in raw] == [oversize]
    await assert_clean(ledger)


@pytest.mark.requirement("AU-307")
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_no_bytes_at_all_make_the_reading_of_an_envelope_fail(body: bytes) -> None:
    rows = rows_of(AUDIT_IN, 1, instant(time.time_ns()), body)
    assert [row.leaf for row in rows] == ([line for line in body.split(b"\n") if line] or [b""])
    assert all(row.leaf_hash == leaf_hash(row.leaf) for row in rows)


@pytest.mark.requirement("AU-101")
async def test_leaves_of_any_text_and_size_are_stored_byte_for_byte(ledger: World) -> None:
    stamp = Stamp("test", "test-0001")
    chance = random.Random(11)
    lines: list[bytes] = []
    for _ in range(60):
        text = "".join(chr(chance.choice((0x20, 0x7F, 0xE9, 0x2028, 0x4E2D, 0x1F600, 0x22, 0x5C))) for _ in range(200))
        lines += leaves_of(1, stamp=stamp, text=text * chance.randrange(1, 60))
    lines += [b"a", b"x" * 60_000]
    assert max(map(len, lines)) == 60_000
    async with ledger.writing(), ledger.publishing():
        for start in range(0, len(lines), 8):
            await ledger.send(*lines[start : start + 8])
        await ledger.wait_signed(len(lines))
    assert {row["leaf"] for row in await ledger.query("select leaf from event")} == set(lines)
    for seq, row in enumerate(await ledger.query("select leaf from event order by seq")):
        assert (await message_at(ledger.nc, "AUDIT", seq + 1)).data == row["leaf"]
    await assert_clean(ledger)


@pytest.mark.requirement("AU-308")
async def test_a_clock_400_days_off_lands_in_the_default_partition_and_is_reported(ledger: World) -> None:
    (line,) = leaves_of(1)
    forged = uuid7(int(time.time() * 1000) + 400 * 86_400_000, os.urandom(10))
    line = line.replace(json.loads(line)["id"].encode(), forged.encode())
    async with ledger.writing(), ledger.publishing():
        await ledger.send(line)
        await ledger.wait_signed(1)
        await until(lambda: _seen(bool(ledger.statuses)))
    assert (await ledger.query("select count(*) as n from event_0_default"))[0]["n"] == 1
    assert ledger.statuses[0][0] == "clock_skew"
    await assert_clean(ledger, {forged})


@pytest.mark.requirement("AU-303")
async def test_four_replicas_with_random_batches_keep_the_indices_dense(ledger: World) -> None:
    lines = leaves_of(3000)
    chance = random.Random(5)
    conns = [await ledger.connect("audit_writer") for _ in range(4)]
    received = instant(time.time_ns())

    async def replica(number: int) -> None:
        mine = lines[number * 750 : (number + 1) * 750]
        while mine:
            take = chance.randrange(1, 60)
            part, mine = mine[:take], mine[take:]
            await Ledger(conns[number], AUDIT_IN).append(rows_of(AUDIT_IN, number, received, b"\n".join(part)))

    await asyncio.gather(*(replica(number) for number in range(4)))
    for conn in conns:
        await conn.close()
    stored = await ledger.query("select seq, leaf from event order by seq")
    assert [row["seq"] for row in stored] == list(range(3000))
    tree = CompactRange()
    tree.extend(leaf_hash(row["leaf"]) for row in stored)
    assert (await ledger.query("select root from tree_state"))[0]["root"] == tree.root()


class FaultyPuller:
    """A source that answers with nothing, a bare time-out or a lost connection in between."""

    def __init__(self, inner: Puller) -> None:
        self.inner = inner
        self.calls = 0
        self.acknowledge = inner.acknowledge
        self.forget = inner.forget
        self.give_back = inner.give_back

    async def take(self, events: int, linger_seconds: float) -> list[Any]:
        self.calls += 1
        if self.calls % 4 == 1:
            return []
        if self.calls % 4 == 2:
            raise TimeoutError
        if self.calls % 4 == 3:
            raise ConnectionResetError
        return await self.inner.take(events, linger_seconds)


@pytest.mark.requirement("AU-205")
async def test_an_empty_fetch_a_bare_timeout_and_a_reset_neither_stop_nor_spin_the_writer(ledger: World) -> None:
    made: list[FaultyPuller] = []

    def faulty_source(puller: Puller) -> FaultyPuller:
        made.append(FaultyPuller(puller))
        return made[0]

    writer, puller = ledger.writer(faulty_source)
    task = asyncio.create_task(writer.run())
    lines = leaves_of(40)
    async with ledger.publishing():
        await ledger.send(*lines)
        await ledger.wait_signed(40)
    assert not task.done()
    assert made[0].calls < 60, "a pause lies between the tries"
    await cancel(task)
    puller.stop()
    await assert_clean(ledger, ids(lines))


@pytest.mark.requirement("NB-8", "NB-14")
async def test_writers_that_end_in_order_under_load_leave_nothing_to_the_time_out_of_the_consumer(
    ledger: World,
) -> None:
    lines = leaves_of(600)

    async def feed() -> None:
        for line in lines:
            await ledger.send(line)

    feeding = asyncio.create_task(feed())
    for turn in range(1, 6):
        writer, puller = ledger.writer()
        task = asyncio.create_task(writer.run())
        await ledger.wait_size(turn * 60)
        await cancel(task)
        await puller.end()
    await feeding
    async with ledger.writing():
        await ledger.wait_size(len(lines), seconds=4)  # the consumer's own time-out is 5 s


async def record_many(recorder: Recorder, count: int, acknowledged: list[int]) -> None:
    """Records with 64 callers; whoever is refused tries again with a new call."""

    async def caller(number: int) -> None:
        done = 0
        while done < count // 64:
            try:
                await recorder.outcome(make_call(number), make_outcome(f"p{number % 7}"))
                done += 1
            except AuditUnavailable:
                await asyncio.sleep(0.02)
        acknowledged.append(done)

    await asyncio.gather(*(caller(number) for number in range(64)))


@pytest.mark.requirement("AU-203")
async def test_a_broker_killed_during_load_loses_nothing(server: Postgres) -> None:
    with nats() as broker:
        async with world(broker, server) as w, w.writing(), w.publishing(), recorder_on(w) as recorder:
            acknowledged: list[int] = []
            load = asyncio.create_task(record_many(recorder, 10_048, acknowledged))
            for size in (1500, 5000):
                await w.wait_size(size)
                broker.kill()
                await asyncio.to_thread(broker.start)
            await asyncio.wait_for(load, 60)
            await until(lambda: _seen(recorder.pending == 0))
            await w.wait_signed(recorder.next_seq)
            rows = await w.query("select outcome, producer_seq from event where producer is not null")
            assert sorted(row["producer_seq"] for row in rows) == list(range(recorder.next_seq))
            assert sum(row["outcome"] == "success" for row in rows) >= sum(acknowledged)
            await assert_clean(w)


@pytest.mark.requirement("AU-304")
async def test_a_database_killed_four_times_in_mid_stream_loses_nothing(broker: Nats) -> None:
    with postgres(durable=True) as pg, lost_connections_apart():
        async with world(broker, pg) as w, w.writing(batch_events=200) as (writer,), w.publishing():
            lines = leaves_of(15_000)
            for start in range(0, 15_000, 100):
                await w.send(*lines[start : start + 100])
            for _ in range(4):
                before = writer.state.size
                await until(lambda b=before: _seen(writer.state.size > b))
                pg.kill()
                await asyncio.to_thread(pg.start)
            await w.wait_signed(15_000, 60)
            assert writer.state.failures >= 4
            await assert_clean(w, ids(lines))
