"""An insider with superuser rights changes the ledger: what `verify` says, and what it cannot say without a pin."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import pytest

from audit_world import SEED, World, make_call, make_outcome, recorder_on, world
from engines import Nats, Postgres
from wardmesh_audit.findings import TAMPERED, VERIFIED, Report
from wardmesh_audit.merkle import CompactRange, leaf_hash
from wardmesh_audit.note import Checkpoint, Signer, open_note, parse_checkpoint
from wardmesh_audit.verify import Pin

pytestmark = pytest.mark.anyio

EVENTS = 300  # one full tile and some


@pytest.fixture
async def ledger(broker: Nats, server: Postgres):
    async with world(broker, server) as w:
        await fill(w, EVENTS)
        yield w


async def fill(w: World, events: int) -> None:
    """Exactly so many events: a start, calls, a stop; all of them signed."""
    async with w.writing(), w.publishing():
        async with recorder_on(w) as recorder:
            for start in range(0, events - 2, 50):
                for i in range(start, min(start + 50, events - 2)):
                    await recorder.outcome(make_call(i), make_outcome(f"p{i % 5}"))
        await w.wait_signed(events)


async def event_id(w: World, seq: int) -> str:
    return str((await w.query("select event_id from event where seq = $1", seq))[0]["event_id"])


def kinds(report: Report) -> list[tuple[str, int]]:
    return [(finding.kind, finding.index) for finding in report.findings]


async def changed_leaf(w: World) -> None:
    await w.tamper("update event set leaf = set_byte(leaf, 40, get_byte(leaf, 40) # 1) where seq = 123")


async def changed_leaf_and_hash(w: World) -> None:
    rows = await w.query("select leaf from event where seq = 123")
    leaf = rows[0]["leaf"].replace(b'"success"', b'"denied1"')
    await w.tamper(
        f"update event set leaf = '\\x{leaf.hex()}', leaf_hash = '\\x{leaf_hash(leaf).hex()}', outcome = 'denied1'"
        " where seq = 123"
    )


async def changed_column(w: World) -> None:
    await w.tamper("update event set actor_id = 'somebody else' where seq = 123")


async def deleted_middle(w: World) -> None:
    await w.tamper("delete from event where seq = 123")


async def deleted_tail(w: World) -> None:
    await w.tamper("delete from event where seq >= 290")


async def renumbered(w: World) -> None:
    await w.tamper("update event set seq = 5000 where seq = 123")


async def swapped(w: World) -> None:
    await w.tamper(
        "update event set seq = 9999 where seq = 123",
        "update event set seq = 123 where seq = 124",
        "update event set seq = 124 where seq = 9999",
    )


async def forged_insert(w: World) -> None:
    leaf = (await w.query("select leaf from event where seq = 123"))[0]["leaf"]
    await w.tamper(
        "insert into event select log_id, 300, gen_random_uuid(), occurred_at, recorded_at, tenant, event_type, phase,"
        " action, outcome, actor_id, patient_ref, resource_type, purpose, break_glass, request_id, trace_id, producer,"
        f" epoch, producer_seq, stream_seq, '\\x{leaf.hex()}', leaf_hash from event where seq = 123"
    )


Change = Callable[[World], Coroutine[Any, Any, None]]


@pytest.mark.requirement("AU-501")
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (changed_leaf, [("leaf_hash", 123)]),
        (changed_leaf_and_hash, [("root", 123)]),
        (changed_column, [("projection", 123)]),
        (deleted_middle, [("missing_index", 123)]),
        (deleted_tail, [("rollback", 300), ("tail_truncated", 290)]),
        (renumbered, [("missing_index", 123), ("foreign_insert", 5000)]),
        (swapped, [("root", 123), ("root", 124)]),
        (forged_insert, [("foreign_insert", 300)]),
    ],
)
async def test_every_tampering_is_detected_with_kind_and_position(
    ledger: World, change: Change, expected: list[tuple[str, int]]
) -> None:
    assert (await ledger.verify()).exit_code == VERIFIED
    named = await event_id(ledger, 123)
    await change(ledger)
    report = await ledger.verify()
    assert report.exit_code == TAMPERED
    assert {kind for kind in kinds(report) if kind[0] != "rollback"} == {k for k in expected if k[0] != "rollback"}
    if expected[0][0] in ("leaf_hash", "projection", "root"):
        assert named in {finding.event_id for finding in report.findings}


@pytest.mark.requirement("AU-501")
async def test_a_changed_row_that_no_tile_covers_is_named_by_the_published_copy(ledger: World) -> None:
    from wardmesh_audit.jetstream import message_at
    from wardmesh_audit.locate import Locator

    rows = await ledger.query("select leaf from event where seq = 280")
    leaf = rows[0]["leaf"].replace(b'"success"', b'"denied1"')
    await ledger.tamper(
        f"update event set leaf = '\\x{leaf.hex()}', leaf_hash = '\\x{leaf_hash(leaf).hex()}', outcome = 'denied1'"
        " where seq = 280"
    )

    async def published(index: int) -> bytes:
        return (await message_at(ledger.nc, "AUDIT", index + 1)).data

    report = await ledger.verify()
    assert report.exit_code == TAMPERED
    assert [finding.kind for finding in report.findings] == ["root"]
    conn = await ledger.connect("audit_reader")
    try:
        report = await ledger.verify(locator=Locator(conn, published))
    finally:
        await conn.close()
    assert kinds(report) == [("root", 280)]


@pytest.mark.requirement("AU-501")
async def test_a_changed_note_is_a_bad_signature(ledger: World) -> None:
    rows = await ledger.query("select size, note from checkpoint order by size desc limit 1")
    note = rows[0]["note"].replace("\n300\n", "\n301\n")
    await ledger.tamper(f"update checkpoint set note = $note${note}$note$ where size = {rows[0]['size']}")
    report = await ledger.verify()
    assert report.exit_code == TAMPERED
    assert ("checkpoint_signature", 300) in kinds(report)


@pytest.mark.requirement("AU-502")
async def test_a_complete_rewrite_with_the_real_key_is_seen_only_against_a_pinned_checkpoint(ledger: World) -> None:
    rows = await ledger.query("select note from checkpoint order by size desc limit 1")
    pinned = parse_checkpoint(open_note(rows[0]["note"], [ledger.signer.verifier]))
    await rewrite(ledger)
    without = await ledger.verify()
    assert without.exit_code == VERIFIED, "documented: inside the database alone this cannot be seen"
    with_pin = await ledger.verify(pins=[Pin(pinned, "pinned file")])
    assert with_pin.exit_code == TAMPERED
    assert ("checkpoint_fork", pinned.size) in kinds(with_pin)


async def rewrite(w: World) -> None:
    """Changes one event and recomputes rows, tree, tiles and checkpoints, signed with the stolen key."""
    signer = Signer("test/audit/0", SEED)
    rows = await w.query("select seq, leaf from event order by seq")
    sizes = [row["size"] for row in await w.query("select size from checkpoint order by size")]
    tree = CompactRange()
    statements = ["delete from tile", "delete from checkpoint"]
    for row in rows:
        leaf = row["leaf"]
        if row["seq"] == 123:
            leaf = leaf.replace(b'"success"', b'"denied1"')
            statements.append(
                f"update event set leaf = '\\x{leaf.hex()}', leaf_hash = '\\x{leaf_hash(leaf).hex()}',"
                " outcome = 'denied1' where seq = 123"
            )
        tree.append(leaf_hash(leaf))
        if tree.size in sizes:
            note = signer.sign(Checkpoint(signer.verifier.name, tree.size, tree.root()).text())
            statements.append(
                "insert into checkpoint (log_id, size, root, note)"
                f" values (0, {tree.size}, '\\x{tree.root().hex()}', $note${note}$note$)"
            )
    statements.append(f"update tree_state set root = '\\x{tree.root().hex()}', frontier = '\\x{tree.frontier().hex()}'")
    await w.tamper(*statements)


@pytest.mark.requirement("AU-505")
async def test_the_writer_role_is_refused_everything_but_appending(ledger: World) -> None:
    month = (await ledger.query("select tableoid::regclass::text as name from event limit 1"))[0]["name"]
    size = await ledger.size()
    refused = (
        "update event set outcome = 'x' where seq = 1",
        "delete from event where seq = 1",
        "truncate event",
        f"truncate {month}",
        "drop table event",
        f"drop table {month}",
        "alter table event disable trigger no_change",
        "set session_replication_role = replica",
        f"insert into {month} select * from event where seq = 1",
        f"alter table event_0 detach partition {month}",
        f"update tree_state set size = {size - 1} where log_id = 0",
        "delete from tree_state",
        "truncate tree_state",
        "insert into checkpoint (log_id, size, root, note) values (0, 1, '', '')",
        "select * from checkpoint",
        "set role audit_owner",
    )
    conn = await ledger.connect("audit_writer")
    try:
        for statement in refused:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute(statement)
    finally:
        await conn.close()
    assert (await ledger.verify()).exit_code == VERIFIED


@pytest.mark.requirement("AU-505")
async def test_not_even_a_superuser_changes_rows_while_the_triggers_stand(ledger: World) -> None:
    conn = await ledger.connect()
    try:
        await conn.execute("set session_replication_role = replica")
        for statement in (
            "update event set outcome = 'x' where seq = 1",
            "delete from event where seq = 1",
            "truncate event",
            "delete from checkpoint",
            "update tree_state set size = 1",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute(statement)
    finally:
        await conn.close()


def test_the_empty_root_of_the_migration_is_that_of_rfc_6962() -> None:
    assert CompactRange().root() == hashlib.sha256(b"").digest()
