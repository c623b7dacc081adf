"""The daily list of logs: a log that is removed, shortened or hidden by settings is missed, also by a kept copy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from audit.test_commands import audit
from audit_world import SEED, SMALL, World, until, world
from engines import Nats, Postgres
from wardmesh_audit.app import connector
from wardmesh_audit.background import Background
from wardmesh_audit.findings import CANNOT_VERIFY, TAMPERED, VERIFIED
from wardmesh_audit.guard import GuardTripped, read_outside
from wardmesh_audit.ledger import Connection
from wardmesh_audit.log_list import list_keys, open_list
from wardmesh_audit.log_list_check import ListCheck
from wardmesh_audit.log_list_daily import DailyList, today_of
from wardmesh_audit.merkle import CompactRange
from wardmesh_audit.note import BadNote, BadSignature, Checkpoint, Signer, UnknownKey, Verifier
from wardmesh_audit.streams import StreamSettings

pytestmark = pytest.mark.anyio

SIGNER = Signer("test/audit/logs", SEED)
TODAY = datetime.now(UTC).date()


@pytest.fixture
async def two_logs(broker: Nats, server: Postgres) -> AsyncGenerator[World]:
    """Two logs with a checkpoint each, and the lists of yesterday and of today."""
    async with world(broker, server, StreamSettings(in_max_bytes=SMALL.in_max_bytes, logs=2)) as w:
        for log in (0, 1):
            tree = CompactRange()
            tree.extend([bytes([log, n]) * 16 for n in range(5)])
            note = Signer(f"test/audit/{log}", SEED).sign(Checkpoint(f"test/audit/{log}", 5, tree.root()).text())
            await w.query("insert into checkpoint values ($1, 5, $2, $3)", log, tree.root(), note)
            state = "update tree_state set size = 5, root = $2, frontier = $3 where log_id = $1"
            await w.query(state, log, tree.root(), tree.frontier())
        for day in (TODAY - timedelta(days=1), TODAY):
            await made(w, day)
        yield w


def always(day: Callable[[], date]) -> Callable[[Connection], Awaitable[date]]:
    async def today(_conn: Connection) -> date:
        return day()

    return today


async def made(w: World, day: date, signer: Signer = SIGNER, trusted: list[Verifier] | None = None) -> str:
    connect, keys = connector(w.url("audit_signer")), trusted or signer.verifiers
    conn = await connect()
    try:
        return await DailyList(w.nc, connect, signer, keys, w.status, today=always(lambda: day)).make(conn)
    finally:
        await conn.close()


async def checked(w: World, *kept: str) -> tuple[int, list[tuple[str, int]]]:
    conn = await w.connect("audit_reader")
    try:
        report = await ListCheck(conn, SIGNER.verifiers).run(kept)
    finally:
        await conn.close()
    return report.exit_code, [(finding.kind, finding.index) for finding in report.findings]


async def without_triggers(w: World, *statements: str) -> None:
    for statement in ("alter table tree_state disable trigger user", "alter table log_list disable trigger user"):
        await w.query(statement)
    for statement in statements:
        await w.query(statement)


async def test_lists_follow_each_other_and_there_is_one_a_day(two_logs: World) -> None:
    w = two_logs
    notes = [row["note"] for row in await w.query("select note from log_list order by day")]
    first, second = (open_list(note, SIGNER.verifiers) for note in notes)
    assert (first.previous, second.previous) == ("first", first.digest())
    assert [(log.origin, log.size) for log in second.logs] == [("test/audit/0", 5), ("test/audit/1", 5)]
    assert await made(w, TODAY) == notes[1] and len(await w.query("select 1 from log_list")) == 2
    assert await checked(w) == (VERIFIED, []) and await checked(w, *notes) == (VERIFIED, [])
    assert await checked(w, notes[1].replace("/1 5", "/1 6")) == (TAMPERED, [("list_signature", 0)])
    with pytest.raises(Exception, match="append-only"):
        await w.query("delete from log_list")


async def test_the_day_of_a_list_is_that_of_the_database_whatever_this_machine_thinks(two_logs: World) -> None:
    """The clock of this database is forty days ahead of the machine that asks."""
    w = two_logs
    await w.query("create schema ahead")
    await w.query(
        "create function ahead.clock_timestamp() returns timestamptz language sql"
        " as $$ select pg_catalog.clock_timestamp() + interval '40 days' $$"
    )
    await w.query("grant usage on schema ahead to public")

    async def connect() -> Connection:
        conn = await connector(w.url("audit_signer"))()
        await conn.execute("set search_path = ahead, public, pg_catalog")
        return conn

    conn = await connect()
    try:
        note = await DailyList(w.nc, connect, SIGNER, SIGNER.verifiers, w.status).make(conn)
        day = await today_of(conn)
    finally:
        await conn.close()
    # Midnight may pass meanwhile.
    assert day > TODAY + timedelta(days=38) and day - open_list(note, SIGNER.verifiers).day < timedelta(days=2)


async def test_a_new_key_goes_on_with_the_lists_of_one_that_has_retired_meanwhile(two_logs: World) -> None:
    w, new = two_logs, Signer("test/audit/logs", bytes(reversed(SEED)))
    tomorrow = TODAY + timedelta(days=1)
    with pytest.raises(UnknownKey):
        await made(w, tomorrow, new)
    trusted = [*new.verifiers, *SIGNER.verifiers]
    note = await made(w, tomorrow, new, trusted)
    before = (await w.query("select note from log_list where day = $1", TODAY))[0]["note"]
    assert open_list(note, new.verifiers).previous == open_list(before, SIGNER.verifiers).digest()


async def test_a_removed_log_is_detected_by_the_lists_and_none_without_it_is_signed(two_logs: World) -> None:
    w = two_logs
    await without_triggers(w, "drop table event_1", "delete from tree_state where log_id = 1")
    assert await checked(w) == (TAMPERED, [("log_missing", 1)])
    with pytest.raises(GuardTripped):
        await made(w, TODAY + timedelta(days=1))
    # Hidden by the settings too: `verify` looks at one log only, and misses the other one all the same.
    done = await audit(w, "verify", "--json")
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == TAMPERED and reports[-1]["findings"][0]["kind"] == "log_missing"
    done = await audit(w, "logs")
    assert done.returncode == TAMPERED and "log_missing at index 1: test/audit/1 is not in the database" in done.stdout


async def test_a_log_cut_short_or_rewritten_and_a_removed_list_are_detected(two_logs: World) -> None:
    w = two_logs
    kept = (await w.query("select note from log_list where day = $1", TODAY))[0]["note"]
    await without_triggers(w, "update tree_state set size = 4 where log_id = 1")
    assert await checked(w) == (TAMPERED, [("log_missing", 1)])
    await without_triggers(
        w, "update tree_state set size = 5 where log_id = 1", "delete from log_list where day < current_date"
    )
    assert (await checked(w))[1] == [("list_missing", 0)]
    await without_triggers(w, "delete from log_list")
    assert await checked(w) == (CANNOT_VERIFY, []), "nobody knows of a list that was never seen"
    assert await checked(w, kept) == (TAMPERED, [("list_missing", 0)])
    await w.query("alter table checkpoint disable trigger user")
    await w.query("delete from checkpoint where log_id = 1")
    assert (await checked(w, kept))[1] == [("list_missing", 0), ("checkpoint_fork", 1)]


async def test_the_command_shows_keeps_and_compares_lists(two_logs: World, tmp_path: Path) -> None:
    w, file = two_logs, tmp_path / "list"
    done = await audit(w, "logs", "-o", str(file))
    assert done.returncode == VERIFIED and f"list of {TODAY}" in done.stdout, done.stdout + done.stderr
    assert "test/audit/1: at least 5 events" in done.stdout
    assert len(open_list(file.read_text(), SIGNER.verifiers).logs) == 2
    await without_triggers(w, "delete from log_list where day = current_date")
    assert (await audit(w, "logs", "--list", str(file))).returncode == TAMPERED
    done = await audit(w, "logs", "--against", "stream", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == TAMPERED and answer["findings"][0]["kind"] == "list_missing"
    assert answer["list"]["day"] == str(TODAY - timedelta(days=1))
    assert (await audit(w, "logs", "--list", str(tmp_path / "none"))).returncode == CANNOT_VERIFY
    assert (await audit(w, "logs", WARDMESH_AUDIT_PUBLIC_KEY="")).returncode == CANNOT_VERIFY


async def test_the_role_makes_the_list_and_the_background_misses_a_log(two_logs: World) -> None:
    w = two_logs
    await without_triggers(w, "delete from log_list")
    days = [TODAY]
    connect = connector(w.url("audit_signer"))
    today = always(lambda: days[-1])
    role = DailyList(w.nc, connect, SIGNER, SIGNER.verifiers, w.status, look_seconds=0.05, today=today)
    task = asyncio.create_task(role.run())
    try:

        async def listed() -> Any:
            return await w.query("select 1 from log_list")

        await until(listed)
        await without_triggers(w, "delete from tree_state where log_id = 1")
        days.append(TODAY + timedelta(days=1))

        async def refused() -> bool:
            return any(reason == "log_list_refused" for reason, _ in w.statuses)

        await until(refused)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    watch = Background(
        w.nc,
        connector(w.url("audit_detect")),
        [w.signer.verifier],
        lambda: read_outside(w.nc, [w.signer.verifier]),
        lists=SIGNER.verifiers,
    )
    conn = await w.connect("audit_detect")
    try:
        report = await watch.verify(conn)
    finally:
        await conn.close()
    assert ("log_missing", 1) in [(finding.kind, finding.index) for finding in report.findings]


def test_a_list_is_read_only_as_it_was_written() -> None:
    text = "test/audit/logs\n2026-05-04\nprevious first\ntest/audit/0 0 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    keys = list_keys("test", [Signer("test/audit/0", SEED).verifier])
    assert keys == SIGNER.verifiers and open_list(SIGNER.sign(text), keys).text() == text
    line = text.splitlines()[3]
    for wrong in (
        text.replace("2026-05-04", "2026-13-04"),
        text.replace("previous ", "before "),
        text.replace("audit/0 ", "audit/00 "),
        text.replace("test/audit/0 ", "other/audit/0 "),
        text + line + "\n",
        text.replace("/0 0", "/0 -1"),
        text.removesuffix("\n"),
    ):
        with pytest.raises(BadNote):
            open_list(SIGNER.sign(wrong), keys)
    with pytest.raises(UnknownKey):
        open_list(Signer("test/audit/logs", bytes(32)).sign(text), keys)
    with pytest.raises(BadSignature):
        open_list(SIGNER.sign(text).replace("05-04", "05-05"), keys)
