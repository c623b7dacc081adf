"""The consumer library: every index in order through kills, gaps and forks as alarms, filters, cursors, proofs."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats as plain
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from audit_world import SMALL, World, leaves_of, remove_streams, world
from engines import Nats, Postgres, nats
from wardmesh_audit.client import AuditConsumer, BadCursor, Event, Forked, Gap, TooFewWitnesses, Trust, begin_at
from wardmesh_audit.client_cursor import Cursor, load, save
from wardmesh_audit.client_trust import VerifiedTree
from wardmesh_audit.cosignature import Cosigner
from wardmesh_audit.export import export_tlog
from wardmesh_audit.note import BadNote, BadSignature, Signer, UnknownKey, open_note, parse_checkpoint
from wardmesh_audit.prove import prove
from wardmesh_audit.streams import provision
from wardmesh_common.leaf import Draft
from wardmesh_common.stamp import Stamp
from witness_world import ORIGIN, SEED, Log

pytestmark = pytest.mark.anyio
PROCESS = Path(__file__).parents[1] / "audit_consumer_process.py"
VKEY = Signer(ORIGIN, SEED).verifier.vkey()


@pytest.fixture
async def ledger(broker: Nats, server: Postgres):
    async with world(broker, server) as w:
        yield w


async def fill(w: World, count: int) -> list[bytes]:
    lines, before = leaves_of(count), await w.size()
    async with w.writing(), w.publishing():
        for start in range(0, count, 50):
            await w.send(*lines[start : start + 50])
        await w.wait_signed(before + count)
    return lines


@asynccontextmanager
async def consuming(w: World, cursor: Path, **options: Any) -> AsyncGenerator[AuditConsumer]:
    nc = await plain.connect(w.nats.url)
    try:
        yield AuditConsumer(nc, "test", cursor_file=cursor, **{"log_keys": [VKEY], **options})
    finally:
        await nc.close()


async def take(consumer: AuditConsumer, count: int, *, commit: bool = True) -> list[Event]:
    """Exactly the next `count` events, or what the consumer raises."""
    found: list[Event] = []
    async with asyncio.timeout(60):
        async for batch in consumer.batches():
            found += batch
            if commit:
                consumer.commit(batch)
            if len(found) >= count:
                break
    return found


async def stored(w: World) -> list[bytes]:
    return [row["leaf"] for row in await w.query("select leaf from event order by seq")]


@pytest.mark.requirement("AU-601")
@pytest.mark.timeout(400)
async def test_a_consumer_killed_anywhere_sees_every_index_at_least_once_and_in_order(
    ledger: World, tmp_path: Path
) -> None:
    await fill(ledger, 3000)
    out, cursor = tmp_path / "out", tmp_path / "cursor"
    out.touch()
    command = [sys.executable, str(PROCESS), ledger.nats.url, VKEY, str(cursor), str(out)]
    pick = random.Random(7)
    limit, kills = time.monotonic() + 120, 0
    while (done := len(set(indices(out)))) < 3000 or kills < 6:
        process = subprocess.Popen(command)
        size = out.stat().st_size + (pick.randrange(20_000, 900_000) if done < 3000 else 0)
        while out.stat().st_size < size and len(set(indices(out))) < 3000:
            assert process.poll() is None and time.monotonic() < limit
            await asyncio.sleep(0.02)
        process.kill()
        process.wait(20)
        kills += 1
    lines = whole_lines(out)
    seen = dict(zip(indices(out), [bytes.fromhex(line.split()[1]) for line in lines], strict=True))
    assert [seen[index] for index in range(3000)] == await stored(ledger)
    for first, second in zip(indices(out), indices(out)[1:], strict=False):
        assert second <= first + 1, "nothing is skipped; after a kill a part may come again"
    assert cursor.stat().st_size < 1500


def whole_lines(out: Path) -> list[str]:
    return [line for line in out.read_text().splitlines(keepends=True) if line.endswith("\n")]


def indices(out: Path) -> list[int]:
    return [int(line.split()[0]) for line in whole_lines(out)]


@pytest.mark.requirement("AU-601")
async def test_a_removed_message_is_a_gap_with_its_place(server: Postgres, tmp_path: Path) -> None:
    with nats() as broker:
        async with world(broker, server) as w:
            await fill(w, 300)
            nc = await plain.connect(broker.url)
            js = nc.jetstream()
            leaves = [(await js.get_msg("AUDIT", seq=n + 1)) for n in range(300)]
            await js.delete_stream("AUDIT")  # an administrator rebuilds it without one event
            await js.add_stream(name="AUDIT", subjects=["audit.v1.0.>"])
            for message in leaves:
                headers = {k: v for k, v in (message.headers or {}).items() if k.startswith("Audit-")}
                await js.publish(message.subject or "", message.data or b"", headers=headers)
            await js.delete_msg("AUDIT", 124)
            await nc.close()
            async with consuming(w, tmp_path / "cursor") as consumer:
                with pytest.raises(Gap) as caught:
                    await take(consumer, 300)
    assert (caught.value.first, caught.value.last) == (123, 123)


class Lossy:
    """Stands before an object of nats-py and loses the first messages of the first fetch."""

    def __init__(self, inner: Any, state: list[bool]) -> None:
        self._inner = inner
        self._state = state

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def jetstream(self) -> Lossy:
        return Lossy(self._inner.jetstream(), self._state)

    async def pull_subscribe_bind(self, **options: Any) -> Lossy:
        return Lossy(await self._inner.pull_subscribe_bind(**options), self._state)

    async def fetch(self, *args: Any, **options: Any) -> list[Any]:
        messages = await self._inner.fetch(*args, **options)
        if not self._state:
            self._state.append(True)
            return messages[5:]
        return messages


async def test_messages_that_the_client_lost_are_asked_for_again_and_are_no_gap(ledger: World, tmp_path: Path) -> None:
    await fill(ledger, 200)
    nc = await plain.connect(ledger.nats.url)
    lost: list[bool] = []
    wire: Any = Lossy(nc, lost)
    consumer = AuditConsumer(wire, "lossy", cursor_file=tmp_path / "cursor", log_keys=[VKEY])
    events = await take(consumer, 200)
    await nc.close()
    assert lost and [event.index for event in events] == list(range(200))


@pytest.mark.requirement("AU-602")
async def test_server_side_filters_deliver_exactly_the_matching_set(ledger: World) -> None:
    stamp, pick = Stamp("test", "test-0001"), random.Random(11)
    purposes = ["TREAT", "BTG", "HPAYMT", None]
    lines: list[bytes] = []
    expected: set[bytes] = set()
    for n in range(10_000):
        purpose = pick.choice(purposes)
        data = {"action": "R", "outcome": {"code": "success"}, "n": n}
        if purpose:
            data["purpose_of_use"] = purpose
        leaf, _, _ = stamp.leaf(Draft(event_class="access", data=data, tenant="default"), {})
        lines.append(leaf)
        if purpose == "BTG":
            expected.add(leaf)
    async with ledger.writing(), ledger.publishing():
        for start in range(0, len(lines), 250):
            await ledger.send(*lines[start : start + 250])
        await ledger.wait_signed(10_000, 60)
    nc = await plain.connect(ledger.nats.url)
    js = nc.jetstream()
    config = ConsumerConfig(
        ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL, filter_subject="audit.v1.*.*.*.BTG"
    )
    info = await js.add_consumer("AUDIT", config)
    assert info.num_pending == len(expected)
    subscription = await js.pull_subscribe_bind(consumer=info.name, stream="AUDIT")
    found: list[bytes] = []
    while len(found) < len(expected):
        found += [message.data for message in await subscription.fetch(500, timeout=10)]
    await nc.close()
    assert len(found) == len(set(found))
    assert set(found) == expected


async def test_every_event_is_verified_and_the_cursor_goes_on(ledger: World, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    await fill(ledger, 700)
    async with consuming(ledger, cursor, verified_only=True, batch=100) as consumer:
        events = await take(consumer, 700)
        assert [event.leaf for event in events] == await stored(ledger)
        assert consumer.verified == 700
        assert (events[0].type, events[0].json()["specversion"]) == ("audit_status", "1.0")
    kept = load(cursor, 0)
    assert (kept.next, kept.size, kept.text) == (700, 700, "0:699")
    assert parse_checkpoint(open_note(kept.note, [ledger.signer.verifier])).size == 700
    await fill(ledger, 100)
    async with consuming(ledger, cursor) as consumer:
        events = await take(consumer, 100)
    assert [event.index for event in events] == list(range(700, 800))


async def test_without_commit_the_same_comes_again(ledger: World, tmp_path: Path) -> None:
    await fill(ledger, 60)
    for _ in range(2):
        async with consuming(ledger, tmp_path / "cursor") as consumer:
            assert [e.index for e in await take(consumer, 60, commit=False)] == list(range(60))


@pytest.mark.requirement("AU-502")
async def test_a_rewritten_log_is_a_fork_for_whoever_has_seen_it_before(ledger: World, tmp_path: Path) -> None:
    cursor = tmp_path / "cursor"
    await fill(ledger, 300)
    async with consuming(ledger, cursor, verified_only=True) as consumer:
        await take(consumer, 300)
    await remove_streams(ledger.nc)
    await provision(ledger.nc, SMALL)
    forged = Log().grow(300).grow(50, "forged")
    nc = await plain.connect(ledger.nats.url)
    js = nc.jetstream()
    for leaf in forged.leaves:
        event = await js.publish("audit.v1.0.access.R._", leaf, headers=headers_of(await last(js), leaf))
        assert event.seq
    await js.publish("audit.checkpoint.0", forged.note().encode())
    await nc.close()
    async with consuming(ledger, cursor, verified_only=True) as consumer:
        with pytest.raises(Forked):
            await take(consumer, 50)


async def last(js: Any) -> int:
    return (await js.stream_info("AUDIT")).state.last_seq


def headers_of(index: int, leaf: bytes) -> dict[str, str]:
    from base64 import b64encode

    from wardmesh_audit.merkle import leaf_hash

    return {"Audit-Log-Index": str(index), "Audit-Leaf-Hash": b64encode(leaf_hash(leaf)).decode()}


async def test_a_stream_that_became_shorter_is_a_fork(ledger: World, tmp_path: Path) -> None:
    await fill(ledger, 100)
    async with consuming(ledger, tmp_path / "cursor") as consumer:
        await take(consumer, 100)
    await remove_streams(ledger.nc)
    await provision(ledger.nc, SMALL)
    async with consuming(ledger, tmp_path / "cursor") as consumer:
        with pytest.raises(Forked):
            await take(consumer, 1)


async def test_a_broker_that_restarts_is_no_reason_to_stop_or_to_skip(server: Postgres, tmp_path: Path) -> None:
    with nats() as broker:
        async with world(broker, server) as w:
            await fill(w, 200)
            async with consuming(w, tmp_path / "cursor", batch=50) as consumer:
                found: list[int] = []
                async with asyncio.timeout(60):
                    async for batch in consumer.batches():
                        found += [event.index for event in batch]
                        consumer.commit(batch)
                        if len(found) == 200:
                            break
                        if len(found) == 100:
                            broker.kill()
                            await asyncio.to_thread(broker.start)
    assert found == list(range(200))


async def test_a_proof_is_checked_with_keys_alone_and_witnesses_are_counted(ledger: World) -> None:
    await fill(ledger, 50)
    event_id = (await ledger.query("select event_id from event where seq = 17"))[0]["event_id"]
    conn = await ledger.connect("audit_reader")
    text = (await prove(conn, event_id)).text()
    await conn.close()
    assert Trust([VKEY]).proof(text).index == 17
    cosigner = Cosigner("w1", bytes(32))
    asking = Trust([VKEY], [cosigner.key.vkey()], quorum=1)
    with pytest.raises(TooFewWitnesses):
        asking.proof(text)
    note = text.partition("\n\n")[2]
    body = note.rpartition("\n\n")[0] + "\n"
    assert asking.proof(text + cosigner.cosign(body)).index == 17
    with pytest.raises(UnknownKey):
        Trust([Signer(ORIGIN, bytes(32)).verifier.vkey()]).proof(text)
    with pytest.raises(BadSignature):
        asking.proof(text + cosigner.cosign("something else\n"))
    with pytest.raises(BadNote):
        Trust([VKEY], [], quorum=1)


async def test_a_consumer_may_begin_in_the_middle_with_the_tiles_of_a_checkpoint(ledger: World, tmp_path: Path) -> None:
    await fill(ledger, 700)
    conn = await ledger.connect("audit_reader")
    await export_tlog(conn, tmp_path / "log")
    await conn.close()
    note = (tmp_path / "log" / "checkpoint").read_text()
    checkpoint = Trust([VKEY]).checkpoint(note)
    begun = begin_at(checkpoint, note, lambda path: (tmp_path / "log" / path).read_bytes())
    save(tmp_path / "cursor", begun)
    await fill(ledger, 40)
    async with consuming(ledger, tmp_path / "cursor", verified_only=True) as consumer:
        events = await take(consumer, 40)
    assert [event.index for event in events] == list(range(700, 740))
    with pytest.raises(BadCursor):
        begin_at(checkpoint, note, lambda path: bytes((tmp_path / "log" / path).stat().st_size))


@pytest.mark.parametrize("damage", [b"", b"{}", b"x", b'{"log":1,"next":0,"size":0,"frontier":"","note":""}'])
async def test_a_damaged_cursor_is_refused_and_not_taken_for_a_new_one(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "cursor"
    path.write_bytes(damage)
    with pytest.raises(BadCursor):
        load(path, 0)


async def test_the_cursor_never_claims_a_tree_ahead_of_what_was_processed() -> None:
    log = Log().grow(30)
    tree = VerifiedTree(Cursor())
    from wardmesh_audit.merkle import leaf_hash

    for leaf in log.leaves:
        tree.add(leaf_hash(leaf))
    for size in (10, 20):
        note = log.note(size)
        assert tree.confirm(parse_checkpoint(note.partition("\n\n")[0] + "\n"), note, 0)
    assert [tree.cursor(at).size for at in (5, 10, 15, 20, 30)] == [0, 10, 10, 20, 20]
