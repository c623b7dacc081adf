"""EIO at the writes and syncs of PostgreSQL and of the broker, injected by strace: what was acknowledged stays."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
from pathlib import Path

import asyncpg
import pytest
from nats.errors import Error as NatsError

from audit_strace import STRACE, WITHOUT_STRACE, injecting
from audit_world import World, leaves_of, lost_connections_apart, until, world
from engines import Nats, Postgres, nats, postgres
from wardmesh_audit.findings import VERIFIED
from wardmesh_audit.prove import prove
from wardmesh_common.lean import NotConnected

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(STRACE is None, reason=WITHOUT_STRACE),
]

ROUND = 400


async def injected(log: Path) -> bool:
    return log.exists() and b"INJECTED" in log.read_bytes()


async def offer(w: World, lines: list[bytes]) -> set[str]:
    """Sends in messages of ten as a producer does: the same bytes until the stream has acknowledged them, 30 s long."""
    acknowledged: set[str] = set()
    limit = time.monotonic() + 30
    for start in range(0, len(lines), 10):
        part = lines[start : start + 10]
        while time.monotonic() < limit:
            headers = {"Nats-Msg-Id": json.loads(part[0])["id"]}
            try:
                answer = await w.nc.request("audit.in.0", b"\n".join(part), timeout=1, headers=headers)
            except (NatsError, NotConnected, TimeoutError, OSError):
                await asyncio.sleep(0.05)
                continue
            if b'"error"' not in answer.data and b'"stream"' in answer.data:
                acknowledged |= {json.loads(line)["id"] for line in part}
                break
            await asyncio.sleep(0.05)
    return acknowledged


async def ids(w: World) -> set[str]:
    rows = [str(row["event_id"]) for row in await w.query("select event_id from event")]
    assert len(rows) == len(set(rows)), "no event twice"
    return set(rows)


@pytest.mark.requirement("AU-310")
async def test_io_errors_of_the_database_lose_nothing(broker: Nats, tmp_path: Path) -> None:
    with postgres(durable=True) as pg, lost_connections_apart():
        async with world(broker, pg) as w, w.writing(batch_events=50), w.publishing():
            sent: set[str] = set()
            for number, (calls, when) in enumerate(
                (
                    ("fdatasync", "1"),
                    ("fdatasync", "4+3"),
                    ("pwrite64", "3"),
                    ("pwrite64,pwritev", "9+5"),
                    ("fsync", "1"),
                )
            ):
                log = tmp_path / f"strace-{number}"
                async with injecting(pg, calls, f"error=EIO:when={when}", log):
                    sent |= await offer(w, leaves_of(ROUND))
                    sent |= await _until_injected(w, log, checkpoint=calls == "fsync")
                assert len(sent) >= ROUND * (number + 1), "the broker takes records while the database fails"
                await _running(w)
                await w.wait_signed(len(sent), 60)
            assert await ids(w) == sent
            report = await w.verify()
            assert report.exit_code == VERIFIED, report.as_text()
            await _indexes_agree(w)


async def _until_injected(w: World, log: Path, *, checkpoint: bool) -> set[str]:
    """Offers more, so that there is always something to commit or to sync, until a call has failed."""
    sent: set[str] = set()
    limit = time.monotonic() + 40
    while not await injected(log):
        assert time.monotonic() < limit, "no call was made to fail"
        sent |= await offer(w, leaves_of(10))
        if checkpoint:
            await _checkpoint(w)
        await asyncio.sleep(0.1)
    return sent


async def _checkpoint(w: World) -> None:
    """What fails here is the checkpoint: PostgreSQL must not forget what it could not sync."""
    with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        conn = await asyncpg.connect(w.url("postgres"), timeout=5)
        try:
            # A table of its own, so that something is dirty even when the writer has not committed yet.
            await conn.execute("create table if not exists dirt as select generate_series(1, 100) as n", timeout=5)
            await conn.execute("update dirt set n = n + 1", timeout=5)
            await conn.execute("checkpoint", timeout=10)
        finally:
            conn.terminate()


async def _running(w: World) -> None:
    """PostgreSQL starts over by itself after a PANIC; when the postmaster gave up too, as an operator would."""
    assert w.pg.process is not None
    with contextlib.suppress(subprocess.TimeoutExpired):
        await asyncio.to_thread(w.pg.process.wait, 0.5)
        await asyncio.to_thread(w.pg.start)

    async def answers() -> bool:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return await w.size() >= 0
        return False

    await until(answers)


async def _indexes_agree(w: World) -> None:
    """Every row is found by its index as well, and has a proof."""
    conn = await w.connect("audit_reader")
    try:
        await conn.execute("set enable_seqscan = off")
        by_index = await conn.fetchval("select count(*) from event where log_id = 0 and seq >= 0")
        await conn.execute("set enable_seqscan = on; set enable_indexscan = off; set enable_bitmapscan = off")
        assert by_index == await conn.fetchval("select count(*) from event where log_id = 0 and seq >= 0")
        await prove(conn, await conn.fetchval("select event_id from event where seq = 7"))
    finally:
        await conn.close()


@pytest.mark.requirement("AU-310")
async def test_io_errors_of_the_broker_lose_nothing_that_was_acknowledged(server: Postgres, tmp_path: Path) -> None:
    with nats() as broker:
        async with world(broker, server) as w:
            acknowledged: set[str] = set()
            for number, (calls, when) in enumerate(
                (("fsync", "3"), ("write", "5+40"), ("pwrite64", "2"), ("fsync", "2+5"))
            ):
                log = tmp_path / f"strace-{number}"
                async with w.writing(), w.publishing(), injecting(broker, calls, f"error=EIO:when={when}", log):
                    lines = leaves_of(60)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(4):
                            for start in range(0, 60, 10):
                                acknowledged |= await offer(w, lines[start : start + 10])
                # A broker that cannot write is replaced: what it acknowledged is on its disk.
                broker.kill()
                await asyncio.to_thread(broker.start)
                await until(lambda: _connected(w))
            async with w.writing(), w.publishing():
                acknowledged |= await offer(w, leaves_of(20))

                async def complete() -> bool:
                    return acknowledged <= await ids(w)

                await until(complete, 60)
                await w.wait_signed(await w.size(), 30)
            report = await w.verify()
            assert report.exit_code == VERIFIED, report.as_text()


async def _connected(w: World) -> bool:
    try:
        await w.nc.request("$JS.API.INFO", b"", timeout=1)
    except (NatsError, NotConnected, TimeoutError, OSError):
        return False
    return True
