"""AUDIT and the checkpoints: order, what a signature may cover, two publishers, the guard against an old database."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable

import pytest
from nats.errors import Error as NatsError

from audit_world import World, cancel, leaves_of, until, world
from engines import Nats, Postgres, nats, postgres
from wardmesh_audit.findings import VERIFIED
from wardmesh_audit.guard import GuardTripped
from wardmesh_audit.jetstream import api, last_sequence, message_at
from wardmesh_audit.note import Signer, open_note, parse_checkpoint
from wardmesh_audit.outbox import BATCH_FROM, BATCH_MESSAGES, Committed, Outbox, OutOfOrder, subject_of
from wardmesh_audit.streams import AUDIT, AUDIT_CHECKPOINT
from wardmesh_cli.account import give
from wardmesh_common.lean import LeanClient

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ledger(broker: Nats, server: Postgres):
    async with world(broker, server) as w:
        yield w


async def append(w: World, lines: list[bytes], size: int) -> None:
    async with w.writing():
        for start in range(0, len(lines), 50):
            await w.send(*lines[start : start + 50])
        await w.wait_size(size)


async def assert_published(w: World, lines: list[bytes]) -> None:
    """AUDIT holds exactly these leaves in the order of the ledger."""
    assert await last_sequence(w.nc, AUDIT) == len(lines)
    stored = [row["leaf"] for row in await w.query("select leaf from event order by seq")]
    published = [(await message_at(w.nc, AUDIT, seq + 1)).data for seq in range(len(lines))]
    assert published == stored
    assert set(stored) == set(lines)


class DyingOutbox:
    """An outbox whose owner disappears at one of its steps."""

    def __init__(self, inner: Outbox, step: str, after: int) -> None:
        self._inner = inner
        self._step = step
        self._left = after

    async def publish(self, rows: list[Committed]) -> None:
        if self._step == "half":
            rows = rows[: len(rows) // 2]
        await self._inner.publish(rows)
        self._count("half", "events")

    async def publish_checkpoint(self, size: int, note: str) -> None:
        self._count("before_checkpoint")
        await self._inner.publish_checkpoint(size, note)
        self._count("checkpoint")

    def _count(self, *steps: str) -> None:
        if self._step in steps:
            self._left -= 1
            if self._left <= 0:
                raise KeyboardInterrupt


@pytest.mark.requirement("AU-404")
@pytest.mark.parametrize("step", ["half", "events", "before_checkpoint", "checkpoint"])
async def test_no_checkpoint_ever_covers_an_event_that_is_not_in_the_stream(ledger: World, step: str) -> None:
    lines = leaves_of(1200)
    await append(ledger, lines, 1200)
    publisher = ledger.publisher(lambda outbox: DyingOutbox(outbox, step, 1))
    with pytest.raises(KeyboardInterrupt):  # awaited in this task, so that it arrives here and not in the event loop
        await publisher.run()
    await assert_covered(ledger)
    async with ledger.publishing():
        await ledger.wait_signed(1200)
        await assert_checkpoint_published(ledger, 1200)
    await assert_published(ledger, lines)
    await assert_covered(ledger)
    assert (await ledger.verify()).exit_code == VERIFIED


async def assert_covered(w: World) -> None:
    published = await last_sequence(w.nc, AUDIT)
    rows = await w.query("select coalesce(max(size), 0) as size from checkpoint")
    assert rows[0]["size"] <= published


async def assert_checkpoint_published(w: World, size: int) -> None:
    async def there() -> bool:
        info = await api(w.nc, f"STREAM.INFO.{AUDIT_CHECKPOINT}")
        last = info["state"]["last_seq"]
        if not last:
            return False
        note = (await message_at(w.nc, AUDIT_CHECKPOINT, last)).data.decode()
        return parse_checkpoint(open_note(note, [w.signer.verifier])).size >= size

    await until(there)


@pytest.mark.requirement("AU-405")
async def test_two_publishers_make_one_note_per_size_and_a_dense_stream(ledger: World) -> None:
    lines = leaves_of(2000)
    async with ledger.writing(), ledger.publishing() as first, ledger.publishing() as second:
        for start in range(0, 2000, 50):
            await ledger.send(*lines[start : start + 50])
        await ledger.wait_signed(2000)
        assert [first.state.active, second.state.active].count(True) == 1
    await assert_published(ledger, lines)
    info = await api(ledger.nc, f"STREAM.INFO.{AUDIT_CHECKPOINT}")
    sizes: list[int] = []
    for seq in range(1, info["state"]["last_seq"] + 1):
        note = (await message_at(ledger.nc, AUDIT_CHECKPOINT, seq)).data.decode()
        sizes.append(parse_checkpoint(open_note(note, [ledger.signer.verifier])).size)
    assert sizes == sorted(set(sizes))


@pytest.mark.requirement("AU-405")
async def test_a_publisher_that_lost_its_lock_writes_nothing_out_of_order(ledger: World) -> None:
    lines = leaves_of(600)
    await append(ledger, lines[:300], 300)
    async with ledger.publishing() as frozen:
        await ledger.wait_signed(300)
        # Its session is ended as by a failover while it sleeps; another one takes over and goes ahead.
        await ledger.query(
            "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objid = 0 and granted"
        )
        async with ledger.publishing():
            await append(ledger, lines[300:], 600)
            await ledger.wait_signed(600)
            # Thawed with what it believed before: the server refuses every stale message.
            rows = await ledger.query(
                "select seq, event_type, action, purpose, leaf, leaf_hash from event where seq >= 300 order by seq"
            )
            stale = Outbox(ledger.nc)
            from wardmesh_audit.publisher import _committed

            with pytest.raises(OutOfOrder):
                await stale.publish([_committed(row) for row in rows])
            stale.stop()
        assert frozen.state.tripped == ""
    await assert_published(ledger, lines)
    assert (await ledger.verify()).exit_code == VERIFIED


def test_subjects_come_from_the_columns_and_nothing_in_them_can_change_their_shape() -> None:
    def subject(event_type: str, action: str | None, purpose: str | None) -> str:
        row = Committed(1, event_type, action, purpose, b"", b"", "")
        return subject_of(0, row)

    assert subject("access", "R", "TREAT") == "audit.v1.0.access.R.TREAT"
    assert subject("malformed", None, None) == "audit.v1.0.malformed._._"
    assert subject("a.b", "* >", "x\r\ny").count(".") == 5


async def test_a_database_restored_from_an_older_copy_gets_no_append_and_no_signature(broker: Nats) -> None:
    with postgres(durable=True) as pg:
        async with world(broker, pg) as w:
            lines = leaves_of(120)
            async with w.writing(), w.publishing():
                await w.send(*lines[:60])
                await w.wait_signed(60)
            copy = pg.home / "copy"
            pg.stop()
            shutil.copytree(pg.home / "data", copy)
            await asyncio.to_thread(pg.start)
            async with w.writing(), w.publishing():
                await w.send(*lines[60:100])
                await w.wait_signed(100)
            pg.stop()
            shutil.rmtree(pg.home / "data")
            shutil.copytree(copy, pg.home / "data")
            give(pg.home)
            await asyncio.to_thread(pg.start)
            await w.send(*lines[100:])
            writer, puller = w.writer()
            publisher = w.publisher()
            with pytest.raises(GuardTripped):
                await asyncio.wait_for(writer.run(), 60)
            with pytest.raises(GuardTripped):
                await asyncio.wait_for(publisher.run(), 60)
            puller.stop()
            assert await w.size() == 60, "nothing was appended"
            assert (await w.query("select max(size) as size from checkpoint"))[0]["size"] == 60
            assert [reason for reason, _ in w.statuses] == ["guard_tripped"]


async def test_another_history_with_the_same_size_trips_the_guard(ledger: World) -> None:
    async with ledger.writing(), ledger.publishing():
        await ledger.send(*leaves_of(10))
        await ledger.wait_signed(10)
        await assert_checkpoint_published(ledger, 10)
    await ledger.tamper("update tree_state set root = sha256('x')")
    with pytest.raises(GuardTripped):
        await asyncio.wait_for(ledger.publisher().run(), 60)


@pytest.mark.requirement("AU-407")
async def test_a_publisher_with_another_key_refuses_to_start(ledger: World) -> None:
    async with ledger.writing(), ledger.publishing():
        await ledger.send(*leaves_of(10))
        await ledger.wait_signed(10)
        await assert_checkpoint_published(ledger, 10)
    ledger.signer = Signer("test/audit/0", bytes(32))
    task = asyncio.create_task(ledger.publisher().run())
    with pytest.raises(GuardTripped):
        await asyncio.wait_for(task, 60)
    await cancel()


class Wire:
    """A connection that counts what is sent and loses what it is told to lose."""

    def __init__(self, inner: LeanClient, lose: Callable[[bytes], bool] = lambda _header: False) -> None:
        self.inner = inner
        self.inbox = inner.inbox
        self.lean_subscribe = inner.lean_subscribe
        self.lean_forget = inner.lean_forget
        self.lose = lose
        self.headers: list[bytes] = []

    def lean_publish(self, subject: str, payload: bytes, reply: str = "", header: bytes = b"") -> None:
        self.headers.append(header)
        if not self.lose(header):
            self.inner.lean_publish(subject, payload, reply=reply, header=header)


def rows_of(lines: list[bytes], first: int = 0) -> list[Committed]:
    return [Committed(first + i, "audit_status", None, None, line, bytes(32), "") for i, line in enumerate(lines)]


async def test_a_large_round_is_one_atomic_batch_and_a_small_one_is_not(ledger: World) -> None:
    wire = Wire(ledger.nc)
    outbox = Outbox(wire)  # type: ignore[arg-type]
    lines = leaves_of(BATCH_FROM * 2 - 1 + 2 * BATCH_MESSAGES + 1)
    await outbox.publish(rows_of(lines[: BATCH_FROM - 1]))
    assert not any(b"Nats-Batch" in header for header in wire.headers)
    rest = lines[BATCH_FROM - 1 :]
    await outbox.publish(rows_of(rest, BATCH_FROM - 1))
    assert sum(b"Nats-Batch-Commit: 1" in header for header in wire.headers) == 3
    assert await last_sequence(ledger.nc, AUDIT) == len(lines)
    for seq in (1, BATCH_FROM, BATCH_FROM + BATCH_MESSAGES, len(lines)):
        assert (await message_at(ledger.nc, AUDIT, seq)).data == lines[seq - 1]
    outbox.stop()


@pytest.mark.parametrize("lost", [b"Batch-Sequence: 1\r\n", b"Batch-Sequence: 30\r\n"])
async def test_of_a_batch_that_did_not_arrive_whole_nothing_is_stored(ledger: World, lost: bytes) -> None:
    lines = leaves_of(60)
    torn = Outbox(Wire(ledger.nc, lambda header: lost in header))  # type: ignore[arg-type]
    with pytest.raises(OutOfOrder):
        await torn.publish(rows_of(lines))
    assert await last_sequence(ledger.nc, AUDIT) == 0
    torn.stop()
    whole = Outbox(ledger.nc)
    await whole.publish(rows_of(lines))
    assert await last_sequence(ledger.nc, AUDIT) == 60
    whole.stop()


@pytest.mark.parametrize("size", [1, BATCH_FROM - 1, BATCH_FROM, 60])
async def test_a_round_that_skips_or_repeats_an_index_puts_nothing_in_a_wrong_place(ledger: World, size: int) -> None:
    lines = leaves_of(160)
    outbox = Outbox(ledger.nc)
    await outbox.publish(rows_of(lines[:80]))
    for first in (0, 10, 79, 81, 90):
        with pytest.raises(OutOfOrder):
            await outbox.publish(rows_of(lines[first : first + size], first))
        last = await last_sequence(ledger.nc, AUDIT)
        assert last == 80 or size < BATCH_FROM, "of a batch nothing is stored"

    async def caught_up() -> bool:
        start = await last_sequence(ledger.nc, AUDIT)
        with contextlib.suppress(OutOfOrder):  # the server may still have been busy with the refused round
            await outbox.publish(rows_of(lines[start:], start))
        return await last_sequence(ledger.nc, AUDIT) == 160

    await until(caught_up)
    published = [(await message_at(ledger.nc, AUDIT, seq)).data for seq in range(1, 161)]
    assert published == lines
    outbox.stop()


@pytest.mark.requirement("AU-404")
async def test_a_broker_killed_between_and_inside_batches_leaves_the_stream_dense_and_in_order(
    server: Postgres,
) -> None:
    with nats() as broker:
        async with world(broker, server) as w:
            lines = leaves_of(6000)
            await append(w, lines, 6000)
            async with w.publishing():
                for mark in (500, 2000, 4000):

                    async def reached(mark: int = mark) -> bool:
                        try:
                            return await last_sequence(w.nc, AUDIT) >= mark
                        except (NatsError, OSError):
                            return False

                    await until(reached)
                    broker.kill()
                    await asyncio.to_thread(broker.start)
                await w.wait_signed(6000)
            await assert_published(w, lines)
            assert (await w.verify()).exit_code == VERIFIED
