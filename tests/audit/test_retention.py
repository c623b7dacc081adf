"""Retention: only the one function drops, holds and late events block it, and everything signed stays provable."""

from __future__ import annotations

import hashlib
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from audit_world import World, leaves_of, world
from engines import Nats, Postgres
from wardmesh_audit import holds, retention
from wardmesh_audit.deeds import Deeds
from wardmesh_audit.findings import INCOMPLETE, TAMPERED, VERIFIED
from wardmesh_audit.proof import check_proof
from wardmesh_audit.prove import prove
from wardmesh_common.errors import BadRequest, Conflict
from wardmesh_common.stamp import Stamp

pytestmark = pytest.mark.anyio

OLD = [datetime(2010, month, 10, tzinfo=UTC) for month in (1, 2, 3)]
PARTS = ["event_0_201001", "event_0_201002", "event_0_201003"]


async def history(w: World) -> list[bytes]:
    """Three months of long ago with 300 events each, and 300 of today; signed, tiles stored."""
    conn = await w.connect()
    try:
        await conn.execute("set role audit_owner")
        for month in OLD:
            assert await conn.fetchval("select audit_make_month(0::smallint, $1)", month)
    finally:
        await conn.close()
    lines: list[bytes] = []
    for when in OLD:
        lines += leaves_of(300, stamp=Stamp("test", "test-old", clock=when.timestamp))
    lines += leaves_of(300)
    for i in range(0, len(lines), 100):
        await w.send(*lines[i : i + 100])
    await w.wait_size(1200)
    await w.wait_signed(1200)
    # They were stored when they happened, not today.
    await w.tamper("update event set recorded_at = occurred_at where occurred_at < '2011-01-01'")
    return lines


async def run(w: World, exports: Path) -> list[retention.Dropped]:
    conn = await w.connect("audit_retention")
    try:
        return await retention.run(conn, Deeds(w.nc, conn), exports, "audit")
    finally:
        await conn.close()


@pytest.mark.requirement("AU-703", "AU-704")
async def test_expired_months_go_and_all_checkpoints_and_surviving_proofs_stay_valid(
    broker: Nats, server: Postgres, tmp_path: Path
) -> None:
    async with world(broker, server) as w, w.writing(), w.publishing():
        lines = await history(w)
        # A late event of March is stored today; an officer holds February.
        late = leaves_of(1, stamp=Stamp("test", "test-late", clock=OLD[2].timestamp))
        await w.send(*late)
        await w.wait_signed(1201)
        officer = await w.connect("audit_officer")
        scope = holds.Scope(since=OLD[1], until=datetime(2010, 2, 11, tzinfo=UTC))
        held = await holds.place(officer, scope, "litigation", "ann", uuid.uuid4())
        dropped = await run(w, tmp_path)
        assert [gone.partition for gone in dropped] == PARTS[:1]
        assert dropped[0].min_index == 300
        conn = await w.connect("audit_retention")
        left = {month.partition: month.obstacles for month in await retention.months(conn)}
        await conn.close()
        assert left[PARTS[1]] == ("legal hold",)
        assert left[PARTS[2]] == ("not expired", "tiles missing"), "the late event keeps its month"
        await holds.release(officer, held.id, "ann")
        with pytest.raises(Conflict):
            await holds.release(officer, held.id, "ann")
        assert await run(w, tmp_path) == [], "one person is not enough"
        assert not (await holds.release(officer, held.id, "bob")).active
        await officer.close()
        assert [gone.partition for gone in await run(w, tmp_path)] == PARTS[1:2]
        # 2 intents and 2 outcomes came on top.
        await w.wait_signed(1205)
        report = await w.verify()
        assert (report.exit_code, report.rows, report.size) == (VERIFIED, 605, 1205), report.as_text()
        reader = await w.connect("audit_reader")
        try:
            assert await retention.min_index(reader) == 600
            for index in (600, 899, 900, 1200):
                event_id = await reader.fetchval("select event_id from event where seq = $1", index)
                check_proof(await prove(reader, event_id), [w.signer.verifier])
            events = await reader.fetch(
                "select phase, outcome, leaf from event where event_type = 'retention' order by seq"
            )
            runs = await reader.fetch("select * from retention_run order by min_index")
        finally:
            await reader.close()
        assert [(e["phase"], e["outcome"]) for e in events] == [("intent", "success"), ("outcome", "success")] * 2
        assert [(r["first_seq"], r["last_seq"], r["rows"], r["policy"]) for r in runs] == [
            (0, 299, 300, "10 years"),
            (300, 599, 300, "10 years"),
        ]
        assert (tmp_path / PARTS[0] / "events.ndjson").read_bytes() == b"".join(line + b"\n" for line in lines[:300])
        manifest = json.loads((tmp_path / PARTS[0] / "manifest.json").read_text())
        assert manifest["sha256"] == runs[0]["export_sha256"]


@pytest.mark.requirement("AU-703", "AU-704")
async def test_bodies_too_large_for_a_leaf_go_with_their_month_unless_a_hold_may_be_about_them(
    broker: Nats, server: Postgres, tmp_path: Path
) -> None:
    bodies = [bytes([65 + n]) * 70_000 for n in range(3)]
    async with world(broker, server) as w, w.writing(), w.publishing():
        await history(w)
        for body in bodies:
            await w.send(body)
        await w.send(*leaves_of(80))  # their tile is full and stored
        await w.wait_signed(1283)
        # Two of them happened long ago, one in January and one in February; their leaves name no time.
        await w.tamper("alter table malformed_payload disable trigger no_change")
        for seq, when in ((1200, OLD[0]), (1201, OLD[1])):
            await w.tamper(
                f"with made as (select event_id as old, (substr(audit_uuid_at('{when}')::text, 1, 14)"
                f" || substr(event_id::text, 15))::uuid as new from event where seq = {seq}), moved as (update event"
                f" set event_id = new, occurred_at = '{when}', recorded_at = '{when}' from made where event_id = old)"
                " update malformed_payload set event_id = new from made where event_id = old"
            )
        await w.tamper("alter table malformed_payload enable always trigger no_change")
        officer = await w.connect("audit_officer")
        scope = holds.Scope(patient="ab" * 16, since=OLD[1], until=OLD[2])  # whom the body is about nobody knows
        held = await holds.place(officer, scope, "litigation", "ann", uuid.uuid4())
        for statement in ("delete from malformed_payload", "update malformed_payload set raw = ''"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await w.query(statement)  # not even a superuser, while the month is there
        assert [gone.partition for gone in await run(w, tmp_path)] == [PARTS[0], PARTS[2]]
        assert sorted(bytes(row["raw"][:1]) for row in await w.query("select raw from malformed_payload")) == [
            b"B",
            b"C",
        ]
        copy = tmp_path / PARTS[0] / f"{hashlib.sha256(bodies[0]).hexdigest()}.body"
        assert copy.read_bytes() == bodies[0]
        await holds.release(officer, held.id, "ann")
        await holds.release(officer, held.id, "bob")
        await officer.close()
        assert [gone.partition for gone in await run(w, tmp_path)] == [PARTS[1]]
        assert [bytes(row["raw"]) for row in await w.query("select raw from malformed_payload")] == [bodies[2]]
        rows = await w.query("select partition, payloads from retention_run order by partition")
        assert [tuple(row) for row in rows] == [(PARTS[0], 1), (PARTS[1], 1), (PARTS[2], 0)]
        await w.wait_signed(1289)
        report = await w.verify()
        assert report.exit_code == VERIFIED, report.as_text()


@pytest.mark.requirement("AU-704")
async def test_nothing_but_the_function_drops_and_it_demands_its_event(broker: Nats, server: Postgres) -> None:
    async with world(broker, server) as w, w.writing(), w.publishing():
        await history(w)
        conn = await w.connect("audit_retention")
        try:
            for statement in (
                f"drop table {PARTS[0]}",
                f"alter table event_0 detach partition {PARTS[0]}",
                f"delete from {PARTS[0]}",
                f"truncate {PARTS[0]}",
                "insert into retention_run (id) values (gen_random_uuid())",
                "delete from tile",
                "select audit_make_month(0::smallint, now())",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await conn.execute(statement)
            for part, event, digest in (
                (PARTS[0], uuid.uuid4(), "0" * 64),  # no such event in the ledger
                ("event_0_default", uuid.uuid4(), "0" * 64),
                ("pg_class", uuid.uuid4(), "0" * 64),
            ):
                with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
                    await conn.fetchval("select audit_drop_month(0::smallint, $1, $2, $3)", part, event, digest)
            writer = await w.connect("audit_writer")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await writer.fetchval("select audit_drop_month(0::smallint, 'x', gen_random_uuid(), '')")
            await writer.close()
        finally:
            await conn.close()
        assert (await w.query("select count(*) as n from retention_run"))[0]["n"] == 0
        assert await w.size() == 1200


@pytest.mark.requirement("AU-703")
async def test_pruning_hides_no_deletion(broker: Nats, server: Postgres, tmp_path: Path) -> None:
    async with world(broker, server) as w, w.writing(), w.publishing():
        await history(w)
        assert len(await run(w, tmp_path)) == 3
        await w.wait_signed(1206)
        assert (await w.verify()).exit_code == VERIFIED
        # The level-0 tiles of what is gone are the evidence now: nobody may change them, and a change is seen.
        signer = await w.connect()
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await signer.execute("update tile set data = data where level = 0 and idx = 0")
        await signer.close()
        await w.tamper("delete from event where seq = 1000")
        assert (await w.verify()).exit_code in (TAMPERED, INCOMPLETE)


@pytest.mark.requirement("AU-703")
async def test_a_hold_says_what_it_is_about(broker: Nats, server: Postgres) -> None:
    async with world(broker, server) as w:
        conn = await w.connect("audit_officer")
        try:
            for scope, reason in (
                (holds.Scope(), "x"),
                (holds.Scope(actor="a"), ""),
                (holds.Scope(since=datetime(2020, 1, 1)), "x"),  # noqa: DTZ001
                (holds.Scope(since=OLD[1], until=OLD[0]), "x"),
            ):
                with pytest.raises(BadRequest):
                    await holds.place(conn, scope, reason, "ann", uuid.uuid4())
            hold_id = uuid.uuid4()
            first = await holds.place(conn, holds.Scope(patient="ab" * 16), "why", "ann", hold_id)
            assert await holds.place(conn, holds.Scope(actor="other"), "why", "eve", hold_id) == first
            assert await holds.listed(conn) == [first]
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute("update legal_hold set scope = '{}'")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.execute("delete from legal_hold")
            with pytest.raises(asyncpg.CheckViolationError):
                await conn.execute("update legal_hold set released_by = 'eve', released_at = now()")
        finally:
            await conn.close()
