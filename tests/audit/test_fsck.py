"""`fsck` and `report` as commands: each fault is found with its place; reports are recorded before they are shown."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from audit_stage import Stage, audit_stage
from audit_world import World, make_call, make_outcome, recorder_on, until, world
from engines import Nats, Postgres

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def ledger(broker: Nats, server: Postgres):
    """Written and signed, and then left alone: a running service stops at once when somebody adds rows."""
    async with world(broker, server) as w:
        async with w.writing(), w.publishing(), recorder_on(w) as recorder:
            for start in range(0, 600, 60):
                calls = [make_call(number) for number in range(start, start + 60)]
                await asyncio.gather(*(recorder.outcome(call, make_outcome("p1")) for call in calls))
            await w.wait_signed(600)

            async def tiles_kept() -> bool:
                """The cache of tiles is extended after the checkpoint is out."""
                return (await w.query("select count(*) as n from tile where level = 0"))[0]["n"] == 2

            await until(tiles_kept)
        yield w


@pytest.fixture(scope="module")
async def stage(broker: Nats, server: Postgres):
    async with audit_stage(broker, server) as made:
        for number in range(5):
            await made.record(make_call(number), *make_outcome("p1").touched)
        await made.settled()
        yield made


async def command(given: dict[str, str], *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WARDMESH_")}
    call = [sys.executable, "-m", "wardmesh_audit", *args]
    environ = {**kept, **given, **more}
    return await asyncio.to_thread(
        subprocess.run, call, env=environ, capture_output=True, text=True, timeout=60, check=False
    )


async def found(ledger: World) -> tuple[int, list[tuple[str, int]]]:
    reader = {"WARDMESH_AUDIT_READER_URL": ledger.url("audit_reader"), "WARDMESH_DEPLOYMENT": "test"}
    done = await command(reader, "fsck", "--json")
    assert done.returncode in (0, 1, 2), done.stderr
    report = json.loads(done.stdout)
    assert report["exit"] == done.returncode
    return done.returncode, [(each["kind"], each["index"]) for each in report["findings"]]


@pytest.mark.requirement("AU-506")
async def test_each_fault_of_the_database_is_found_with_its_place(ledger: World) -> None:
    assert await found(ledger) == (0, [])
    await ledger.query("create table kept as select * from tile")
    await ledger.query("update tile set data = set_byte(data, 70, get_byte(data, 70) # 1) where level = 0 and idx = 1")
    assert await found(ledger) == (1, [("tile", 258)])
    await ledger.query("delete from tile where level = 0 and idx = 1")
    assert await found(ledger) == (1, [("tile", 1)])
    await ledger.query("insert into tile select * from kept where level = 0 and idx = 1")
    await copied(ledger, 17, 17, "event_id_of_last_month")
    assert await found(ledger) == (1, [("duplicate_index", 17)])
    await removed(ledger, "seq = 17 and event_id < audit_uuid_at(now() - interval '20 days')")
    await copied(ledger, 17, 900_000, "nil")
    assert await found(ledger) == (2, [("default_partition", 900_000)])
    await removed(ledger, "seq = 900000")
    for index in ("actor_id_occurred_at", "patient_ref_occurred_at", "log_id_seq"):
        await behind_its_back(ledger, index)
        code, findings = await found(ledger)
        assert (code, findings) == (1, [("index", 900_001)]), index
        await removed(ledger, "seq = 900001")
    assert await found(ledger) == (0, [])


async def copied(ledger: World, seq: int, as_seq: int, event_id: str) -> None:
    ids = {
        "event_id_of_last_month": "audit_uuid_at(now() - interval '28 days')",
        "nil": "'00000000-0000-0000-0000-000000000001'",
    }
    columns = (
        "occurred_at, recorded_at, tenant, event_type, phase, action, outcome, actor_id, patient_ref, leaf, leaf_hash"
    )
    await ledger.query(
        f"insert into event (log_id, seq, event_id, {columns})"
        f" select log_id, {as_seq}, {ids.get(event_id, event_id)}, {columns} from event where seq = {seq} limit 1"
    )


async def removed(ledger: World, which: str) -> None:
    """Without the indexes: one of them may not know of the row."""
    conn = await ledger.connect()
    try:
        await conn.execute("set enable_indexscan = off; set enable_bitmapscan = off; set enable_indexonlyscan = off")
        await conn.execute("alter table event disable trigger user")
        await conn.execute(f"delete from event where {which}")
        await conn.execute("alter table event enable always trigger no_change")
        await conn.execute("alter table event enable always trigger no_truncate")
    finally:
        await conn.close()


async def behind_its_back(ledger: World, index: str) -> None:
    """A row that its index does not know of: the index is switched off in the catalogue while the row is written."""
    this = (await ledger.query("select tableoid::regclass::text as name from event where seq = 18"))[0]["name"]
    switch = "update pg_index set indisready = {} where indexrelid = '{}_{}_idx'::regclass"
    await ledger.query(switch.format("false", this, index))
    await copied(ledger, 18, 900_001, "(substr(event_id::text, 1, 24) || '000000000001')::uuid")
    await ledger.query(switch.format("true", this, index))


async def test_a_report_is_recorded_before_it_is_shown_and_withheld_without_a_record(stage: Stage) -> None:
    done = await command(stage.environ, "report", "patient", "store/Patient/p1", "--by", "officer-7")
    report = json.loads(done.stdout)
    assert done.returncode == 0 and len(report["lines"]) == 5

    async def recorded() -> list[Any]:
        return await stage.query("select event_type, patient_ref from event where actor_id = 'officer-7'")

    rows = await until(recorded, 60)
    assert [row["event_type"] for row in rows] == ["audit_read"]
    assert rows[0]["patient_ref"].hex() == report["about"]
    away = await command(
        stage.environ, "report", "user", "issuer|doctor", "--by", "x", WARDMESH_NATS_URL="nats://127.0.0.1:9"
    )
    assert (away.returncode, away.stdout) == (3, "")
    csv = await command(stage.environ, "report", "user", "issuer|doctor", "--by", "officer-7", "--format", "csv")
    assert csv.returncode == 0 and len(csv.stdout.splitlines()) == 6
    none = await command(stage.environ, "report", "disclosures", "store/Patient/p1", "--by", "officer-7")
    assert json.loads(none.stdout)["disclosures"] == []


@pytest.mark.parametrize(
    "args",
    [("report",), ("report", "patient", "x"), ("report", "user", "a", "--by", "b", "--from", "soon"), ("fsck", "x")],
)
async def test_wrong_usage_is_64(stage: Stage, args: tuple[str, ...]) -> None:
    assert (await command(stage.environ, *args)).returncode == 64
