"""The first schema becomes the newest one in mid-log: both parts verify, and the counters of old events are there."""

from __future__ import annotations

import asyncio
import json
import os
import uuid

import asyncpg
import pytest

from audit_world import SMALL, World, leaves_of, until, world
from engines import Nats, Postgres
from wardmesh_audit import gaps, signing
from wardmesh_audit.app import connector
from wardmesh_audit.assertions import check_guards
from wardmesh_audit.background import Background
from wardmesh_audit.findings import VERIFIED
from wardmesh_audit.fsck import Fsck
from wardmesh_audit.guard import read_outside
from wardmesh_audit.migrate import migrate
from wardmesh_audit.nodes import NodeReader
from wardmesh_audit.proof import check_proof
from wardmesh_audit.prove import prove
from wardmesh_audit.tiles import full_tiles_between
from wardmesh_common.stamp import Stamp

pytestmark = pytest.mark.anyio

# How the first version closed its transaction, before producers were counted.
_FIRST_ADVANCE = "update tree_state set size = $2, root = $3, frontier = $4 where log_id = $1"


async def first_writer(w: World, lines: list[bytes]) -> None:
    """Stores events as the first version did: rows and tree, no counters."""
    from wardmesh_audit.envelope import instant, rows_of
    from wardmesh_audit.merkle import CompactRange
    from wardmesh_audit.projection import COLUMNS

    conn = await w.connect("audit_writer")
    try:
        for start in range(0, len(lines), 100):
            rows = rows_of("AUDIT_IN", 1, instant(0), b"\n".join(lines[start : start + 100]))
            async with conn.transaction():
                state = await conn.fetchrow("select size, frontier from tree_state where log_id = 0 for update")
                assert state is not None
                tree = CompactRange(state["size"], state["frontier"])
                records = [
                    (0, tree.size + i, *row.projected, None, row.leaf, row.leaf_hash) for i, row in enumerate(rows)
                ]
                await conn.copy_records_to_table("event", records=records, columns=COLUMNS)
                tree.extend(row.leaf_hash for row in rows)
                await conn.execute(_FIRST_ADVANCE, 0, tree.size, tree.root(), tree.frontier())
    finally:
        await conn.close()


@pytest.mark.requirement("AU-311")
async def test_an_upgrade_under_load_leaves_a_log_that_verifies_over_both_parts(broker: Nats, server: Postgres) -> None:
    stamp, dead = Stamp("test", "test-0001"), Stamp("test", "test-dead")
    lines, holes = leaves_of(2000, stamp=stamp), leaves_of(20, stamp=dead)
    async with world(broker, server, SMALL) as made:
        w = World(broker, server, made.nc, f"audit_{os.urandom(4).hex()}", made.signer)
        await migrate(server.url(w.database), revision="0001")
        await first_writer(w, lines[:700])
        await first_writer(w, [*holes[:5], *holes[8:]])
        # Old writers work on while the schema changes.
        load = asyncio.create_task(first_writer(w, lines[700:1400]))
        await migrate(server.url(w.database), logs=2)
        await load
        async with w.writing(), w.publishing():
            for start in range(1400, 2000, 50):
                await w.send(*lines[start : start + 50])
            await w.wait_signed(2017)
        report = await w.verify()
        assert (report.exit_code, report.rows) == (VERIFIED, 2017), report.as_text()
        rows = {str(row["event_id"]) for row in await w.query("select event_id from event")}
        assert rows == {json.loads(line)["id"] for line in (*lines, *holes[:5], *holes[8:])}
        conn = await w.connect("audit_reader")
        try:
            await check_guards(conn)
            found = await gaps.find(conn, silent_seconds=3600, missing_seconds=0)
            # What old writers did not count is no gap; what is missing among the old events is one.
            assert [(gap.producer, gap.ranges) for gap in found] == [("test-dead", ((5, 7),))]
        finally:
            await conn.close()

        async def second_log() -> bool:
            return bool(await w.query("select 1 from tree_state where log_id = 1 and size = 0"))

        await until(second_log)


# How the last release stored a tile, before nodes half-way up were kept with it.
_TILE_BEFORE = "insert into tile (log_id, level, idx, data) values (0, $1, $2, $3)"


async def last_release(w: World, lines: list[bytes]) -> None:
    """A signed log with tiles and a body that was too large for a leaf, in the schema of the last release."""
    await first_writer(w, lines)
    conn = await w.connect("audit_signer")
    try:
        size, root = await signing.tree(conn)
        await signing.sign(conn, w.signer, size, root)
        reader = NodeReader(conn)
        for tile in full_tiles_between(0, size):
            await conn.execute(_TILE_BEFORE, tile.level, tile.number, await reader.tile(tile))
    finally:
        await conn.close()
    (row,) = await w.query("select event_id from event where seq = 3")
    await w.query("insert into malformed_payload values (0, $1, $2)", row["event_id"], b"too large")


@pytest.mark.requirement("AU-311")
async def test_the_ledger_of_the_last_release_goes_on_with_its_tiles_and_bodies(broker: Nats, server: Postgres) -> None:
    lines = leaves_of(900)
    async with world(broker, server, SMALL) as made:
        w = World(broker, server, made.nc, f"audit_{os.urandom(4).hex()}", made.signer)
        await migrate(server.url(w.database), revision="0002")
        await last_release(w, lines[:600])
        await migrate(server.url(w.database))
        async with w.writing(), w.publishing():
            await w.send(*lines[600:])
            await w.wait_signed(900)
        report = await w.verify()
        assert (report.exit_code, report.rows) == (VERIFIED, 900), report.as_text()
        stored = await w.query("select idx, inner_nodes is null as before from tile where level = 0 order by idx")
        assert [(row["idx"], row["before"]) for row in stored] == [(0, True), (1, True), (2, False)]
        conn = await w.connect("audit_reader")
        try:
            assert (await Fsck(conn, "test/audit/0").run()).exit_code == VERIFIED
            for line in (lines[0], lines[299], lines[600], lines[899]):
                proof = await prove(conn, uuid.UUID(json.loads(line)["id"]))
                assert proof.leaf == line
                check_proof(proof, [w.signer.verifier])
        finally:
            await conn.close()
        await in_the_background(w)
        for change in ("update malformed_payload set raw = ''", "delete from malformed_payload"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                await w.query(change)


async def in_the_background(w: World) -> None:
    """The role that is new has its rights in a database that is not."""
    watch = Background(
        w.nc, connector(w.url("audit_detect")), [w.signer.verifier], lambda: read_outside(w.nc, [w.signer.verifier])
    )
    conn = await w.connect("audit_detect")
    try:
        assert (await watch.verify(conn)).exit_code == VERIFIED
    finally:
        await conn.close()
