"""A restored backup: nothing is appended or signed, and recovery gives back the identical tree."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

import pytest

from audit_world import World, leaves_of, world
from engines import Nats, Postgres, postgres
from wardmesh_audit.app import connector
from wardmesh_audit.connect import nats_as
from wardmesh_audit.findings import VERIFIED
from wardmesh_audit.guard import GuardTripped, read_outside
from wardmesh_audit.migrate import migrate
from wardmesh_audit.recovery import CannotRecover, Recovered, recover
from wardmesh_common.stamp import Stamp

pytestmark = pytest.mark.anyio


async def _recover(w: World) -> Recovered:
    conn = await connector(w.url("audit_writer"))()
    try:
        async with nats_as("operations", w.nats.url, "") as operations:
            outside = await read_outside(w.nc, [w.signer.verifier])
            return await recover(conn, w.nc, operations, outside)
    finally:
        await conn.close()


@pytest.mark.requirement("AU-406")
async def test_a_restored_backup_stops_everything_and_recovery_gives_the_identical_root(broker: Nats) -> None:
    stamp = Stamp("test", "test-0001")
    lines = leaves_of(900, stamp=stamp)
    twin = json.dumps(json.loads(lines[3]) | {"tenant": "other"}, sort_keys=True).encode()
    with postgres(durable=True) as server:
        async with world(broker, server) as w:
            async with w.writing(), w.publishing():
                await w.send(*lines[:300])
                await w.send(b"no event at all")
                await w.wait_signed(301)
            server.stop()
            data = server.home / "data"
            backup = server.home / "backup"
            await asyncio.to_thread(shutil.copytree, data, backup)
            _same_owner(data, backup)
            server.start()
            async with w.writing(), w.publishing():
                # Also what is no event, and an id used twice, has to come back as it was.
                await w.send(*lines[300:600], b"no event either", twin)
                await w.wait_signed(603)
            before = await w.query("select size, root from tree_state")
            rows = await w.query("select seq, event_id, event_type, leaf from event order by seq")
            # Stored and published, and a message that nobody has taken yet.
            await w.send(*lines[600:])

            server.stop()
            await asyncio.to_thread(shutil.rmtree, data)
            backup.rename(data)
            server.start()
            assert await w.size() == 301
            for role in (w.writer()[0], w.publisher()):
                with pytest.raises(GuardTripped):
                    await asyncio.wait_for(role.run(), 60)
            assert await w.size() == 301
            assert "guard_tripped" in [reason for reason, _ in w.statuses]

            done = await _recover(w)
            assert (done.rows, done.size, done.root) == (302, 603, before[0]["root"])
            assert await w.query("select size, root from tree_state") == before
            assert await w.query("select seq, event_id, event_type, leaf from event order by seq") == rows
            async with w.writing() as (writer,), w.publishing():
                await w.wait_signed(903)
                assert (await _recover(w)).rows == 0, "recovering what is complete changes nothing"
                assert writer.state.duplicates >= 302
            assert (await w.verify()).exit_code == VERIFIED
            assert await w.size() == 903
            (counter,) = await w.query("select last_seq, seen, behind_since from producer_seq")
            assert tuple(counter) == (899, 900, None)


@pytest.mark.requirement("AU-406")
async def test_a_copy_with_another_history_is_not_recovered(broker: Nats) -> None:
    with postgres(durable=True) as server:
        async with world(broker, server) as w:
            async with w.writing(), w.publishing():
                await w.send(*leaves_of(50))
                await w.wait_signed(50)
            other = f"{w.database}_other"
            await _empty(server, other)
            forked = World(w.nats, w.pg, w.nc, other, w.signer)
            conn = await forked.connect()
            try:
                await conn.execute("update tree_state set size = 1, root = sha256('x'), frontier = sha256('x')")
            finally:
                await conn.close()
            with pytest.raises(CannotRecover, match="signed"):
                await _recover(forked)
            assert await forked.size() == 1


async def _empty(server: Postgres, database: str) -> None:
    await migrate(server.url(database))


def _same_owner(model: Path, copy: Path) -> None:
    """The engines' account owns the copy as it owns the original."""
    facts = model.stat()
    for path in (copy, *copy.rglob("*")):
        os.chown(path, facts.st_uid, facts.st_gid)
    copy.chmod(0o700)
