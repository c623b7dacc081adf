"""An insider with superuser rights and the stolen signing key: what witness and pins see, and what nobody sees else."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import pytest

from audit_world import SEED, SMALL, World, cancel, leaves_of, remove_streams, until, world
from engines import Nats, Postgres
from wardmesh_audit.app import connector
from wardmesh_audit.cosignature import WitnessAddress, cosignatures, cosigned
from wardmesh_audit.findings import TAMPERED, VERIFIED
from wardmesh_audit.guard import GuardTripped, read_outside
from wardmesh_audit.jetstream import last_message
from wardmesh_audit.merkle import CompactRange, leaf_hash
from wardmesh_audit.note import Checkpoint, Signer, open_note, parse_checkpoint
from wardmesh_audit.outbox import Outbox
from wardmesh_audit.publisher import Publisher
from wardmesh_audit.streams import AUDIT_CHECKPOINT, provision
from wardmesh_audit.verify import Pin
from wardmesh_audit.witness_watch import watch
from wardmesh_audit.witnesses import UNCOSIGNED_SECONDS, Witnesses
from witness_world import ORIGIN, WITNESS_NAME, WitnessProcess, witness_process

pytestmark = pytest.mark.anyio

EVENTS = 300


@pytest.fixture
def witness(tmp_path: Path):
    with witness_process(tmp_path, Signer(ORIGIN, SEED).verifier.vkey()) as running:
        yield running


@pytest.fixture
async def ledger(broker: Nats, server: Postgres):
    async with world(broker, server) as w:
        yield w


@contextlib.asynccontextmanager
async def asking(w: World, *addresses: WitnessAddress, **options: float) -> AsyncGenerator[Witnesses]:
    async with aiohttp.ClientSession() as session:
        yield Witnesses(addresses, [w.signer.verifier], session, **options)  # type: ignore[arg-type]


def publisher(w: World, witnesses: Witnesses) -> Publisher:
    """As the service builds it: it asks the witnesses, and its guard looks at what they have seen."""
    outside = lambda: read_outside(  # noqa: E731
        w.nc, [w.signer.verifier], witnessed=lambda: witnesses.newest(ORIGIN)
    )
    connect = connector(w.url("audit_signer"))
    return Publisher(Outbox(w.nc), connect, outside, w.signer, w.status, witnesses=witnesses, checkpoint_seconds=0.05)


@contextlib.asynccontextmanager
async def publishing(w: World, witnesses: Witnesses) -> AsyncGenerator[None]:
    task = asyncio.create_task(publisher(w, witnesses).run())
    try:
        yield
    finally:
        await cancel(task)


async def fill(w: World, witnesses: Witnesses, events: int = EVENTS) -> None:
    lines, before = leaves_of(events), await w.size()
    async with w.writing(), publishing(w, witnesses):
        for start in range(0, events, 100):
            await w.send(*lines[start : start + 100])
            await w.wait_signed(before + min(events, start + 100))
        await until(lambda: published_size(w, before + events))


async def published_size(w: World, size: int) -> bool:
    message = await last_message(w.nc, AUDIT_CHECKPOINT, "audit.checkpoint.0")
    return message is not None and parse_checkpoint(message.data.decode().partition("\n\n")[0] + "\n").size >= size


async def rewrite_everything(w: World) -> None:
    """One event is changed; leaf hashes, tree, tiles and checkpoints are made anew and signed with the real key."""
    signer = Signer(ORIGIN, SEED)
    rows = await w.query("select seq, leaf from event order by seq")
    sizes = {row["size"] for row in await w.query("select size from checkpoint")}
    tree = CompactRange()
    statements = ["delete from tile", "delete from checkpoint"]
    for row in rows:
        leaf = row["leaf"]
        if row["seq"] == 123:
            leaf = leaf.replace(b'"probe"', b'"prove"')
            assert leaf != row["leaf"]
            values = f"leaf = '\\x{leaf.hex()}', leaf_hash = '\\x{leaf_hash(leaf).hex()}'"
            statements.append(f"update event set {values} where seq = 123")
        tree.append(leaf_hash(leaf))
        if tree.size in sizes:
            note = signer.sign(Checkpoint(ORIGIN, tree.size, tree.root()).text())
            values = f"0, {tree.size}, '\\x{tree.root().hex()}', $note${note}$note$"
            statements.append(f"insert into checkpoint (log_id, size, root, note) values ({values})")
    statements.append(f"update tree_state set root = '\\x{tree.root().hex()}', frontier = '\\x{tree.frontier().hex()}'")
    await w.tamper(*statements)


async def rewrite_streams(w: World) -> None:
    """The published copies as well: the streams are deleted, made again and filled from the changed rows."""
    await remove_streams(w.nc)
    await provision(w.nc, SMALL)
    async with asking(w) as nobody, publishing(w, nobody):
        await until(lambda: published_size(w, EVENTS))


@pytest.mark.requirement("AU-502", "AU-409")
async def test_a_complete_rewrite_is_seen_by_witness_and_pin_and_by_nothing_else(
    ledger: World, witness: WitnessProcess
) -> None:
    async with asking(ledger, witness.address) as witnesses:
        await fill(ledger, witnesses)
        rows = await ledger.query("select note, cosigs from checkpoint order by size desc limit 1")
        pinned = parse_checkpoint(open_note(rows[0]["note"], [ledger.signer.verifier]))
        await rewrite_everything(ledger)
        await rewrite_streams(ledger)

        assert (await ledger.verify()).exit_code == VERIFIED, "documented: the ledger alone cannot see it"
        async with asking(ledger) as nobody:
            await fill(ledger, nobody, 10)
        assert (await ledger.verify()).exit_code == VERIFIED, "documented: it even goes on, and nobody notices"

        report = await ledger.verify(pins=[Pin(pinned, "pinned file")])
        assert (report.exit_code, report.findings[0].kind) == (TAMPERED, "checkpoint_fork")
        seen = await witnesses.newest(ORIGIN)
        assert seen is not None and seen.size == EVENTS
        report = await ledger.verify(pins=[Pin(seen, "witness")])
        assert (report.exit_code, report.findings[0].kind) == (TAMPERED, "checkpoint_fork")

        with pytest.raises(GuardTripped, match="another history"):
            await asyncio.wait_for(signing_once(ledger, witnesses), 60)
    assert [reason for reason, _ in ledger.statuses] == ["guard_tripped"]
    assert await asyncio.to_thread(convicted, witness) == ["grown_fork"]


async def signing_once(w: World, witnesses: Witnesses) -> None:
    """The rewritten log grows: its next checkpoint has to be shown to the witness."""
    async with w.writing():
        await w.send(*leaves_of(5))
        await publisher(w, witnesses).run()


def convicted(witness: WitnessProcess) -> list[str]:
    conn = sqlite3.connect(witness.store)
    try:
        return [row[0] for row in conn.execute("select kind from evidence order by id")]
    finally:
        conn.close()


@pytest.mark.requirement("AU-409")
async def test_an_old_copy_of_everything_trips_over_what_the_witness_has_seen(
    ledger: World, witness: WitnessProcess
) -> None:
    async with asking(ledger, witness.address) as witnesses:
        await fill(ledger, witnesses)
        first = (await ledger.query("select size from checkpoint order by size limit 1"))[0]["size"]
        tree = CompactRange()
        for row in await ledger.query("select leaf_hash from event where seq < $1 order by seq", first):
            tree.append(row["leaf_hash"])
        state = f"size = {first}, root = '\\x{tree.root().hex()}', frontier = '\\x{tree.frontier().hex()}'"
        await ledger.tamper(
            f"delete from event where seq >= {first}",
            f"delete from checkpoint where size > {first}",
            f"update tree_state set {state}",
        )
        await remove_streams(ledger.nc)
        await provision(ledger.nc, SMALL)
        with pytest.raises(GuardTripped, match="ahead of the database"):
            await asyncio.wait_for(publisher(ledger, witnesses).run(), 60)


async def test_cosignatures_are_stored_published_and_marked(ledger: World, witness: WitnessProcess) -> None:
    async with asking(ledger, witness.address) as witnesses:
        await fill(ledger, witnesses)
    rows = await ledger.query("select size, note, cosigs from checkpoint order by size")
    assert all(row["cosigs"] for row in rows)
    for row in rows:
        assert list(cosigned(row["note"] + row["cosigs"], [witness.address.key])) == [WITNESS_NAME]
    message = await last_message(ledger.nc, AUDIT_CHECKPOINT, "audit.checkpoint.0")
    assert message is not None
    assert message.data.decode() == rows[-1]["note"] + rows[-1]["cosigs"]
    assert (await ledger.verify()).exit_code == VERIFIED


async def test_without_an_answer_the_checkpoint_goes_out_without_cosignature(
    ledger: World, witness: WitnessProcess
) -> None:
    witness.process.send_signal(19)  # frozen: it takes the connection and says nothing
    try:
        async with asking(ledger, witness.address, ask_seconds=0.5, pause_seconds=60) as witnesses:
            await fill(ledger, witnesses, 50)
            assert not witnesses.overdue
            assert witnesses.states[WITNESS_NAME].failure == "TimeoutError"
    finally:
        witness.process.send_signal(18)
    message = await last_message(ledger.nc, AUDIT_CHECKPOINT, "audit.checkpoint.0")
    assert message is not None and cosignatures(message.data.decode()) == 0
    assert (await ledger.query("select cosigs from checkpoint order by size desc limit 1"))[0]["cosigs"] is None


async def test_a_quarter_of_an_hour_without_cosignature_is_recorded_once(ledger: World) -> None:
    now = [1000.0]
    address = WitnessAddress(WITNESS_NAME, "http://127.0.0.1:9", Signer(ORIGIN, SEED).verifier)  # type: ignore[arg-type]
    async with asking(ledger, address, clock=lambda: now[0]) as witnesses:  # type: ignore[arg-type]
        task = asyncio.create_task(watch(witnesses, ledger.status, every=0.01))
        now[0] += UNCOSIGNED_SECONDS - 1
        assert not witnesses.overdue
        now[0] += 2

        async def told() -> bool:
            return bool(ledger.statuses)

        await until(told, 60)
        witnesses.states[WITNESS_NAME].cosigned_at = now[0]

        async def again() -> bool:
            return len(ledger.statuses) > 1

        await until(again, 60)
        await cancel(task)
    assert [reason for reason, _ in ledger.statuses] == ["uncosigned", "cosigned_again"]
