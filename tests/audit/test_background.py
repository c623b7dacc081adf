"""The background verification finds a changed row with nobody asking, with its position, and tells it everywhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from audit_world import World, cancel, leaves_of, until, world
from engines import Nats, Postgres
from wardmesh_audit.app import connector
from wardmesh_audit.background import Background
from wardmesh_audit.findings import CANNOT_VERIFY, TAMPERED, VERIFIED
from wardmesh_audit.guard import read_outside
from wardmesh_audit.overview import overview, progress_text
from wardmesh_audit.verify import Verification
from wardmesh_common.telemetry import Telemetry

pytestmark = pytest.mark.anyio


def background(w: World, connect: Callable[[], Awaitable[Any]] | None = None, **options: Any) -> Background:
    quick: dict[str, Any] = {"every_seconds": 0.1, "share": 1.0}
    return Background(
        w.nc,
        connect or connector(w.url("audit_detect")),
        [w.signer.verifier],
        lambda: read_outside(w.nc, [w.signer.verifier]),
        **(quick | options),
    )


@asynccontextmanager
async def kept_ledger(broker: Nats, server: Postgres, events: int = 300) -> AsyncGenerator[World]:
    """A ledger that goes on recording and signing."""
    async with world(broker, server) as w, w.writing(), w.publishing():
        await w.send(*leaves_of(events))
        await w.wait_signed(events)
        yield w


async def reasons(w: World) -> list[tuple[str, dict[str, Any]]]:
    rows = await w.query("select leaf from event where event_type = 'audit_status' order by seq")
    events = [json.loads(row["leaf"])["data"] for row in rows]
    return [(event["outcome"]["reason"], event["facts"]) for event in events]


async def test_a_changed_row_is_found_by_nobody_asking_and_raises_one_alert(broker: Nats, server: Postgres) -> None:
    async with kept_ledger(broker, server) as w:
        watch = background(w)
        task = asyncio.create_task(watch.run())
        try:

            async def runs(code: int, least: int) -> bool:
                found = await w.query("select count(*) as n from verification_run where exit_code = $1", code)
                return found[0]["n"] >= least

            await until(lambda: runs(VERIFIED, 2))
            assert watch.standing.healthy and not await w.query("select 1 from alert")
            await w.tamper("update event set actor_id = 'somebody else' where seq = 123")
            await until(lambda: runs(TAMPERED, 2))
        finally:
            await cancel(task)
        alerts = await w.query("select rule, seq, severity, facts->>'kind' as kind, facts->>'title' as t from alert")
        title = "The ledger is not what was signed"
        assert [tuple(alert) for alert in alerts] == [("ledger_verification", 123, "critical", "projection", title)]
        assert len(await w.query("select 1 from review where status = 'open'")) == 1
        assert not watch.standing.healthy and watch.standing.text() == "projection at index 123"

        async def told() -> bool:
            return len([1 for _, facts in await reasons(w) if facts.get("exit_code") == TAMPERED]) >= 2

        await until(told)
        events = await reasons(w)
        begun = [facts["run"] for reason, facts in events if reason == "verification_started"]
        ended = {facts["run"]: facts for reason, facts in events if reason == "verification"}
        found = [facts for reason, facts in events if reason == "verification_finding"]
        assert len(begun) == len(set(begun)) and set(ended) <= set(begun)
        assert found[0]["first_index"] == 123 and found[0]["kinds"] == ["projection"]
        assert {facts["exit_code"] for facts in ended.values()} == {VERIFIED, TAMPERED}
        rows = await w.query("select leaf from event where event_type = 'alert'")
        assert [json.loads(row["leaf"])["data"]["facts"]["about_index"] for row in rows] == ["0:123"]


async def test_a_log_that_has_just_begun_is_no_error_and_is_verified_from_its_first_checkpoint_on(
    broker: Nats, server: Postgres
) -> None:
    async with world(broker, server) as w:
        asked = 0

        async def outside() -> Any:
            nonlocal asked
            asked += 1
            return await read_outside(w.nc, [w.signer.verifier])

        watch = Background(
            w.nc,
            connector(w.url("audit_detect")),
            [w.signer.verifier],
            outside,
            every_seconds=0.1,
            young_seconds=3600.0,
        )
        task = asyncio.create_task(watch.run())
        try:

            async def waited(turns: int) -> bool:
                return asked >= turns

            await until(lambda: waited(2))  # of an empty log
            async with w.writing():
                await w.send(*leaves_of(10))
                await w.wait_size(10)
                seen = asked
                await until(lambda: waited(seen + 2))  # of one that is not signed yet
                assert not await w.query("select 1 from verification_run")
                assert {reason for reason, _ in await reasons(w)} == {"probe"}
                async with w.publishing():

                    async def verified() -> bool:
                        rows = await w.query("select 1 from verification_run where exit_code = $1", VERIFIED)
                        return bool(rows)

                    await until(verified)
        finally:
            await cancel(task)
        assert not await w.query("select 1 from verification_run where exit_code <> $1", VERIFIED)
        assert not await w.query("select 1 from event where outcome = 'error'")


async def test_a_log_without_checkpoints_that_is_not_young_is_said_to_be_unverified(
    broker: Nats, server: Postgres
) -> None:
    async with world(broker, server) as w, w.writing():
        await w.send(*leaves_of(10))
        await w.wait_size(10)
        await w.tamper("update event set recorded_at = recorded_at - interval '10 minutes'")
        task = asyncio.create_task(background(w).run())
        try:

            async def said() -> bool:
                return bool(await w.query("select 1 from verification_run where exit_code = $1", CANNOT_VERIFY))

            await until(said)
        finally:
            await cancel(task)


async def test_the_standing_is_in_the_status_and_in_the_metrics(broker: Nats, server: Postgres) -> None:
    async with kept_ledger(broker, server) as w:
        watch = background(w)
        reader = InMemoryMetricReader()
        telemetry = Telemetry("audit", reader=reader)
        telemetry.gauge("audit_verify_result", lambda: watch.standing.exit_code, 0)
        conn = await w.connect("audit_detect")
        try:
            assert (await watch.verify(conn)).exit_code == VERIFIED
            assert gauge(reader, "audit_verify_result") == VERIFIED and watch.standing.age() < 60
            await w.tamper("delete from event where seq = 7")
            assert (await watch.verify(conn)).exit_code == TAMPERED
            assert gauge(reader, "audit_verify_result") == TAMPERED
        finally:
            await conn.close()
            telemetry.close()
        conn = await w.connect("audit_reader")
        try:
            state = (await overview(conn, {})).logs[0]
        finally:
            await conn.close()
        assert state.unverified and state.last_verification is not None and state.verifying is not None
        assert state.last_verification.findings[0]["kind"] == "missing_index"
        assert "1 findings" in progress_text(state.verifying) and not state.verifying.running


async def test_slices_say_what_one_run_says(broker: Nats, server: Postgres) -> None:
    async with kept_ledger(broker, server) as w:
        await w.tamper("update event set outcome = 'x' where seq = 20", "delete from event where seq = 250")
        conn = await w.connect("audit_reader")
        try:
            whole = await Verification(conn, [w.signer.verifier]).run()
            parts = Verification(conn, [w.signer.verifier], piece=64)
            turns = 1
            while not await parts.slice():
                turns += 1
        finally:
            await conn.close()
        assert turns == 5 and parts.report == whole
        assert [(each.kind, each.index) for each in whole.findings] == [("projection", 20), ("missing_index", 250)]


async def test_a_history_rewritten_with_the_key_is_found_by_what_was_verified_before(
    broker: Nats, server: Postgres
) -> None:
    async with world(broker, server) as w:
        watch = background(w)
        conn = await w.connect("audit_detect")
        try:
            async with w.writing(), w.publishing():
                await w.send(*leaves_of(300))
                await w.wait_signed(300)
                assert (await watch.verify(conn)).exit_code == VERIFIED
                await w.wait_signed(await w.size())
            # The roles are away meanwhile: a publisher that looks would stop for its own guard.
            await rewrite(w)
            report = await watch.verify(conn)
        finally:
            await conn.close()
        assert report.exit_code == TAMPERED
        assert {finding.kind for finding in report.findings} & {"checkpoint_fork", "rollback"}


async def rewrite(w: World) -> None:
    """As a superuser with the signing key: one event less, everything after it moved up, signed anew."""
    from wardmesh_audit.merkle import CompactRange
    from wardmesh_audit.note import Checkpoint

    kept = [row["leaf_hash"] for row in await w.query("select leaf_hash from event where seq <> 50 order by seq")]
    tree = CompactRange()
    tree.extend(kept)
    note = w.signer.sign(Checkpoint("test/audit/0", tree.size, tree.root()).text())
    await w.tamper(
        "delete from checkpoint",
        "delete from event where seq = 50",
        "update event set seq = seq - 1 + 1000000 where seq > 50",
        "update event set seq = seq - 1000000 where seq >= 1000000",
        f"update tree_state set size = {tree.size}, root = '\\x{tree.root().hex()}',"
        f" frontier = '\\x{tree.frontier().hex()}'",
        f"insert into checkpoint values (0, {tree.size}, '\\x{tree.root().hex()}', '{note}')",
    )


def gauge(reader: InMemoryMetricReader, name: str) -> float:
    data = reader.get_metrics_data()
    assert data is not None
    found = [
        point.value  # type: ignore[union-attr]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
    ]
    return found[-1]
