"""Recording on a real JetStream: batches, retries, deadlines, corrections, the dense counter."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from audit_world import SMALL, Keys, World, make_call, make_outcome, recorder_on, remove_streams, until, world
from engines import Nats, Postgres, nats
from wardmesh_audit.connect import nats_as
from wardmesh_audit.jetstream import api
from wardmesh_audit.streams import AUDIT_IN, StreamSettings, provision, stream_configs
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.errors import AuditUnavailable, Unavailable
from wardmesh_common.questions import KeyAnswer, KeyQuestion
from wardmesh_common.record_keys import KeyRing
from wardmesh_common.record_nats import BusPublisher
from wardmesh_common.recorder import DEADLINE_SECONDS, Recorder
from wardmesh_common.vocabulary import Agent, Interaction, Principal

pytestmark = pytest.mark.anyio


class Gate:
    """A publisher between recorder and stream that can hold, count, or lose the acknowledgement."""

    def __init__(self, inner: Any = None) -> None:
        self.inner = inner
        self.sent: list[tuple[bytes, str]] = []
        self.lose_next = 0
        self.open = asyncio.Event()
        self.open.set()
        self.in_flight = 0
        self.most_in_flight = 0

    async def publish(self, subject: str, data: bytes, msg_id: str) -> None:
        self.sent.append((data, msg_id))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.open.wait()
            await asyncio.sleep(0)
            if self.inner is not None:
                await self.inner.publish(subject, data, msg_id)
            if self.lose_next:
                self.lose_next -= 1
                raise TimeoutError
        finally:
            self.in_flight -= 1

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for data, _ in self.sent for line in data.split(b"\n")]


def recorder_with(gate: Any, **options: Any) -> Recorder:
    keys = KeyRing(options.pop("lend", None) or Keys().lend)
    return Recorder(gate, keys, service="fhir-proxy", instance="fhir-proxy-00c0ffee", **options)


@pytest.fixture
async def stream(broker: Nats) -> AsyncIterator[World]:
    """The streams alone, without a database."""
    async with nats_as("audit", broker.url, "") as nc:
        await provision(nc, SMALL)
        yield World(broker, None, nc, "")  # type: ignore[arg-type]
        await remove_streams(nc)


async def stream_events(w: World) -> list[dict[str, Any]]:
    from wardmesh_audit.jetstream import message_at

    info = await api(w.nc, f"STREAM.INFO.{AUDIT_IN}")
    lines: list[dict[str, Any]] = []
    for seq in range(1, info["state"]["last_seq"] + 1):
        body = (await message_at(w.nc, AUDIT_IN, seq)).data
        lines += [json.loads(line) for line in body.split(b"\n")]
    return lines


@pytest.mark.requirement("AU-107", "NB-15")
async def test_256_concurrent_calls_share_a_twentieth_of_the_messages(stream: World) -> None:
    async with recorder_on(stream) as recorder:
        await recorder.outcome(make_call(), make_outcome("p1"))
        before = recorder.messages
        for _ in range(4):
            await asyncio.gather(*(recorder.outcome(make_call(i), make_outcome("p1")) for i in range(256)))
        assert recorder.messages - before <= 4 * 256 // 20
    info = await api(stream.nc, f"STREAM.INFO.{AUDIT_IN}")
    assert info["state"]["messages"] <= 4 * 256 // 20 + 3


@pytest.mark.requirement("AU-107")
async def test_a_message_never_holds_more_than_128_events_and_two_are_in_flight() -> None:
    gate = Gate()
    gate.open.clear()
    recorder = recorder_with(gate, deadline_seconds=5)
    calls = [asyncio.create_task(recorder.outcome(make_call(i), make_outcome("p1"))) for i in range(1000)]
    await until_sent(gate, 2)
    assert len(gate.sent) == 2, "everything else waits in the queue"
    gate.open.set()
    await asyncio.gather(*calls)
    assert gate.most_in_flight == 2
    assert max(data.count(b"\n") + 1 for data, _ in gate.sent) <= 128
    assert max(len(data) for data, _ in gate.sent) <= 512 * 1024
    await recorder.close()


@pytest.mark.requirement("AU-107")
async def test_large_events_are_cut_into_messages_of_512_kib() -> None:
    gate = Gate()
    recorder = recorder_with(gate, deadline_seconds=5)
    call = make_call()
    call.query = "x=" + "y" * 7900
    await asyncio.gather(*(recorder.outcome(call, make_outcome("p1")) for _ in range(128)))
    assert max(len(data) for data, _ in gate.sent) <= 512 * 1024
    assert max(data.count(b"\n") for data, _ in gate.sent) > 20
    await recorder.close()


@pytest.mark.requirement("AU-107")
async def test_one_call_alone_is_published_in_the_same_turn_of_the_loop() -> None:
    gate = Gate()
    recorder = recorder_with(gate)
    await recorder.outcome(make_call(), make_outcome("p1"))
    gate.sent.clear()
    task = asyncio.create_task(recorder.outcome(make_call(), make_outcome("p1")))
    for _ in range(3):  # start of the task, flush, start of the publish: turns, no clock
        await asyncio.sleep(0)
    assert len(gate.sent) == 1
    await task
    await recorder.close()


@pytest.mark.requirement("AU-108")
async def test_a_retry_has_the_same_bytes_and_id_and_is_stored_once(stream: World) -> None:
    bus = await Bus.connect("fhir-proxy", stream.nats.url, "")
    gate = Gate(BusPublisher(bus))
    gate.lose_next = 1
    recorder = recorder_with(gate, deadline_seconds=5)
    await recorder.outcome(make_call(), make_outcome("p1"))
    assert len(gate.sent) == 2
    assert gate.sent[0] == gate.sent[1]
    first, _, last = gate.sent[0][1].rpartition(".")[2].partition("-")
    assert (first, last) == ("0", "1"), "the id names the producer's numbers inside"
    assert len(await stream_events(stream)) == 2
    await recorder.close()
    await bus.close()


async def test_nothing_is_released_before_the_acknowledgement() -> None:
    gate = Gate()
    recorder = recorder_with(gate, deadline_seconds=5)
    gate.open.clear()
    task = asyncio.create_task(recorder.outcome(make_call(), make_outcome("p1")))
    await until_sent(gate, 1)
    assert not task.done()
    gate.open.set()
    await task
    await recorder.close()


async def test_three_patients_are_three_events_of_one_request_and_all_must_be_acknowledged() -> None:
    class TwoOfThree(Gate):
        async def publish(self, subject: str, data: bytes, msg_id: str) -> None:
            await super().publish(subject, data, msg_id)
            if data.count(b"\n") == 0:
                await held.wait()

    held = asyncio.Event()
    gate = TwoOfThree()
    ring = KeyRing(Keys().lend)
    recorder = Recorder(gate, ring, service="fhir-proxy", instance="fhir-proxy-00c0ffee", deadline_seconds=5)
    # The queue is cut at 128 events: start, 125 others and two of ours fill the first message.
    patients = [f"p{i}" for i in range(125)]
    await ring.lend("default", [f"store/Patient/{p}" for p in [*patients, "a", "b", "c"]])
    others = asyncio.create_task(recorder.outcome(make_call(1), make_outcome(*patients)))
    await asyncio.sleep(0)
    ours = asyncio.create_task(recorder.outcome(make_call(2), make_outcome("a", "b", "c")))
    await others
    await until_sent(gate, 2)
    assert not ours.done(), "two of three are acknowledged"
    held.set()
    await ours
    mine = [e for e in gate.events() if e["data"].get("request", {}).get("id") == "call-2"]
    assert len(mine) == 3
    assert len({e["data"]["patient"]["pseudonym"] for e in mine}) == 3
    await recorder.close()


@pytest.mark.requirement("AU-105", "AU-109")
async def test_a_frozen_broker_ends_calls_in_time_and_each_gets_its_correction(server: Postgres) -> None:
    with nats() as broker:
        impatient = {"deadline_seconds": DEADLINE_SECONDS}
        async with world(broker, server) as w, w.writing(), recorder_on(w, **impatient) as recorder:
            await until(lambda: _works(recorder))
            before = recorder.next_seq
            broker.freeze()
            try:
                took = await _all_refused(recorder, 60)
                single: list[float] = []
                while len(single) < 4:  # a machine may be busy with something else
                    single.append(await _all_refused(recorder, 1))
            finally:
                broker.thaw()
            assert took < DEADLINE_SECONDS + 1.5, "together they take as long as one, not as the broker stays away"
            assert min(single) < DEADLINE_SECONDS + 0.1
            await until(lambda: _recorded(recorder))
            await until(lambda: _works(recorder))
            await w.wait_size(before + 128 + 1)
            rows = await w.query("select event_id::text, leaf from event where event_type = 'access'")
            events = {row["event_id"]: json.loads(row["leaf"]) for row in rows}
            corrections = [e for e in events.values() if e["data"]["outcome"]["code"] == "withheld"]
            # What was tried while the broker came back may have been in time or not.
            corrections = [e for e in corrections if e["data"]["request"]["id"] != "call-9999"]
            assert len(corrections) == 64
            for correction in corrections:
                first = events[correction["data"]["corrects"]]
                assert first["data"]["outcome"]["code"] == "success"
                assert first["data"]["request"] == correction["data"]["request"]
            assert (await w.query("select count(*) - count(distinct event_id) as n from event"))[0]["n"] == 0


async def _all_refused(recorder: Recorder, count: int) -> float:
    """Seconds until so many calls at once have been told that they could not be recorded."""
    started = time.monotonic()
    calls = (recorder.outcome(make_call(i), make_outcome("p1")) for i in range(count))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, AuditUnavailable) for result in results)
    return time.monotonic() - started


async def _recorded(recorder: Recorder) -> bool:
    return recorder.pending == 0


async def _works(recorder: Recorder) -> bool:
    try:
        await recorder.outcome(make_call(9999), make_outcome("p1"))
    except AuditUnavailable:
        return False
    return True


@pytest.mark.requirement("AU-105", "AU-202", "NB-15")
async def test_a_full_stream_refuses_and_loses_nothing_that_was_acknowledged(broker: Nats) -> None:
    async with nats_as("audit", broker.url, "") as nc:
        await provision(nc, StreamSettings(in_max_bytes=1024 * 1024))
        w = World(broker, None, nc, "")  # type: ignore[arg-type]
        try:
            async with recorder_on(w) as recorder:
                acknowledged = refused = 0
                while not refused:
                    results = await asyncio.gather(
                        *(recorder.outcome(make_call(i), make_outcome("p1")) for i in range(64)),
                        return_exceptions=True,
                    )
                    refused += sum(isinstance(result, AuditUnavailable) for result in results)
                    acknowledged += sum(result is None for result in results)
                    assert acknowledged < 5000
                stored = await stream_events(w)
                assert sum(e["type"].endswith("access.v1") for e in stored) >= acknowledged > 0
                # With room again everything that waits arrives, without a hand on the producer.
                config = stream_configs(StreamSettings(in_max_bytes=64 * 1024 * 1024))[AUDIT_IN]
                await api(nc, f"STREAM.UPDATE.{AUDIT_IN}", config)
                await until(lambda: _recorded(recorder))
                stored = await stream_events(w)
                seqs = [e["data"]["producer"]["seq"] for e in stored]
                assert sorted(seqs) == list(range(recorder.next_seq))
        finally:
            await remove_streams(nc)


@pytest.mark.requirement("AU-105")
async def test_a_full_queue_refuses_at_once() -> None:
    gate = Gate()
    recorder = recorder_with(gate, capacity=10, deadline_seconds=5)
    await recorder.outcome(make_call(), make_outcome("p1"))
    gate.open.clear()
    tasks = [asyncio.create_task(recorder.outcome(make_call(i), make_outcome("p1"))) for i in range(40)]
    done, waiting = await asyncio.wait(tasks, timeout=4, return_when=asyncio.FIRST_COMPLETED)
    assert done and all(isinstance(task.exception(), AuditUnavailable) for task in done)
    gate.open.set()
    await asyncio.gather(*waiting)
    await recorder.close()


@pytest.mark.requirement("AU-112")
async def test_the_counter_stays_dense_over_10_000_events_under_random_cancellation() -> None:
    gate = Gate()
    recorder = recorder_with(gate, deadline_seconds=5)
    chance = random.Random(7)
    for _ in range(79):
        tasks = [asyncio.create_task(recorder.outcome(make_call(i), make_outcome(f"p{i % 9}"))) for i in range(128)]
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        for task in tasks:
            if chance.random() < 0.3:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await recorder.close()
    events = gate.events()
    seqs = [e["data"]["producer"]["seq"] for e in events]
    assert len(events) >= 7000
    assert seqs == list(range(len(seqs)))
    assert len({e["data"]["producer"]["epoch"] for e in events}) == 1
    last = events[-1]["data"]
    assert last["outcome"]["reason"] == "stop"
    assert last["facts"]["last_seq"] == last["producer"]["seq"] == len(seqs) - 1


async def test_a_caller_that_hangs_up_does_not_cancel_its_record() -> None:
    gate = Gate()
    gate.open.clear()
    recorder = recorder_with(gate, deadline_seconds=5)
    task = asyncio.create_task(recorder.outcome(make_call(), make_outcome("p1")))
    await until_sent(gate, 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.open.set()
    await recorder.close()
    codes = Counter(e["data"]["outcome"]["code"] for e in gate.events() if e["type"].endswith("access.v1"))
    assert codes == {"success": 1, "withheld": 1}


async def test_without_a_key_the_call_ends_and_only_the_fact_is_recorded() -> None:
    async def nobody(_question: KeyQuestion) -> KeyAnswer:
        raise Unavailable("nobody")

    gate = Gate()
    recorder = recorder_with(gate, lend=nobody)
    with pytest.raises(AuditUnavailable):
        await recorder.outcome(make_call(), make_outcome("p1"))
    await recorder.close()
    (event,) = [e for e in gate.events() if e["type"].endswith("access.v1")]
    assert event["data"]["outcome"] == {"code": "withheld", "http": 503, "reason": "key_unavailable"}
    assert "enc" not in event["data"]


async def test_concurrent_misses_ask_once_and_known_patients_ask_never_again() -> None:
    keys = Keys()
    recorder = recorder_with(Gate(), lend=keys.lend)
    await asyncio.gather(*(recorder.outcome(make_call(i), make_outcome("p1")) for i in range(20)))
    await recorder.outcome(make_call(), make_outcome("p1"))
    assert keys.questions == 1
    await recorder.close()


async def test_keys_are_forgotten_after_five_minutes_and_beyond_the_bound() -> None:
    keys = Keys()
    now = [0.0]
    ring = KeyRing(keys.lend, capacity=2, clock=lambda: now[0])
    await ring.lend("t", ["a", "b"])
    await ring.lend("t", ["c"])
    assert ring.held("t", ["a"]) is None
    assert ring.held("t", ["b", "c"]) is not None
    now[0] = 300.1
    assert ring.held("t", ["b"]) is None


async def test_an_agent_acts_on_behalf_of_its_human_and_a_patient_appears_as_pseudonym() -> None:
    gate = Gate()
    recorder = recorder_with(gate)
    call = make_call()
    agent = Agent(id="cursor-agent-v1.0.0", source="meta")
    call.principal = Principal(id="issuer|jane", roles=("patient",), patient="p1", agent=agent)
    await recorder.outcome(call, make_outcome("p1"))
    data = gate.events()[-1]["data"]
    assert data["actor"]["type"] == "ai_agent"
    assert data["actor"]["id"] == "cursor-agent-v1.0.0"
    assert data["actor"]["on_behalf_of"]["id"] == data["patient"]["pseudonym"]
    assert b"jane" not in gate.sent[-1][0]
    assert data["purpose_of_use"] == "PATRQT"
    await recorder.close()


@pytest.mark.parametrize(
    ("interaction", "status", "kind", "action", "code"),
    [
        (Interaction.READ, 200, "access", "R", "success"),
        (Interaction.SEARCH, 200, "search", "search", "success"),
        (Interaction.CREATE, 201, "write", "C", "success"),
        (Interaction.DELETE, 403, "write", "D", "denied"),
        (Interaction.TRANSACTION, 502, "write", "E", "error"),
    ],
)
async def test_class_action_and_outcome_follow_from_the_call(
    interaction: Interaction, status: int, kind: str, action: str, code: str
) -> None:
    gate = Gate()
    recorder = recorder_with(gate)
    await recorder.outcome(make_call(interaction=interaction), Outcome(status=status))
    event = gate.events()[-1]
    assert event["type"] == f"org.wardmesh.audit.{kind}.v1"
    assert (event["data"]["action"], event["data"]["outcome"]["code"]) == (action, code)
    await recorder.close()


async def test_a_write_records_its_intent_first() -> None:
    gate = Gate()
    recorder = recorder_with(gate)
    call: Call = make_call(interaction=Interaction.UPDATE)
    await recorder.intent(call, make_outcome("p1").touched)
    await recorder.outcome(call, make_outcome("p1"))
    phases = [e["data"]["phase"] for e in gate.events() if e["type"].endswith("write.v1")]
    assert phases == ["intent", "outcome"]
    await recorder.close()


async def until_sent(gate: Gate, count: int) -> None:
    async def enough() -> bool:
        return len(gate.sent) >= count

    await until(enough, 60)
