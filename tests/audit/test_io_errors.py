"""EIO at each write, sync and rename of PostgreSQL and of the broker in turn: what was acknowledged stays, or a gap."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from nats.errors import Error as NatsError

from audit_strace import STRACE, WITHOUT_STRACE, family, injecting
from audit_world import World, leaves_of, lost_connections_apart, until, world
from engines import Nats, Postgres, nats, postgres
from wardmesh_audit import gaps
from wardmesh_audit.findings import VERIFIED
from wardmesh_audit.fsck import Fsck
from wardmesh_audit.jetstream import JetStreamError, api
from wardmesh_audit.prove import prove
from wardmesh_common.lean import NotConnected

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(STRACE is None, reason=WITHOUT_STRACE),
]

ROUND = 100
# Which calls fail, and which of them in each thread: the first, or every so many after a first.
DATABASE = [
    ("write,writev", "1"),
    ("pwrite64", "3+7"),
    ("pwritev", "1"),
    ("fsync", "1"),
    ("fdatasync", "2+4"),
    ("sync_file_range", "1"),
    ("rename,renameat,renameat2", "1"),
    ("unlink,unlinkat", "1"),
]
BROKER = [
    ("write,writev", "5+40"),
    ("pwrite64,pwritev", "2"),
    ("fsync,fdatasync", "3+5"),
    ("rename,renameat,renameat2", "1"),
    ("unlink,unlinkat", "1"),
]
# The broker appends with write(2) and syncs with fsync(2); these it may never use, and then nothing can fail there.
UNUSED_BY_BROKER = "pwrite64,pwritev"


def injected(log: Path) -> bool:
    return log.exists() and b"INJECTED" in log.read_bytes()


async def offer(w: World, lines: list[bytes], seconds: float = 30.0) -> set[str]:
    """Sends in messages of ten as a producer does: the same bytes until the stream has acknowledged them."""
    acknowledged: set[str] = set()
    limit = time.monotonic() + seconds
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


async def sound(w: World) -> None:
    """Verified from the leaves, found by every index, provable, and as `fsck` wants it."""
    report = await w.verify()
    assert report.exit_code == VERIFIED, report.as_text()
    await _indexes_agree(w)

    async def clean() -> bool:
        conn = await w.connect("audit_reader")
        try:
            found = await Fsck(conn, w.signer.verifier.name).run()
        finally:
            await conn.close()
        # The tiles of the last checkpoint may still be on their way.
        assert all("tile" in each.kind for each in found.findings), found.as_text()
        return not found.findings

    await until(clean, 60)


@pytest.fixture(scope="module")
def durable() -> Iterator[Postgres]:
    """A server of their own for tests that may leave it broken."""
    with postgres(durable=True) as engine:
        yield engine


@pytest.mark.requirement("AU-310")
@pytest.mark.parametrize(("calls", "when"), DATABASE, ids=[f"{c.split(',')[0]}-{w}" for c, w in DATABASE])
async def test_io_errors_of_the_database_lose_nothing(
    broker: Nats, durable: Postgres, tmp_path: Path, calls: str, when: str
) -> None:
    log = tmp_path / "strace"
    with lost_connections_apart():
        async with world(broker, durable) as w, w.writing(batch_events=50), w.publishing():
            async with injecting(durable, calls, f"error=EIO:when={when}", log):
                sent = await offer(w, leaves_of(ROUND))
                assert len(sent) == ROUND, "the broker takes records while the database fails"
                sent |= await _provoked(w, log, lambda: _stir(w))
            await _running(w)
            sent |= await offer(w, leaves_of(10))
            await w.wait_signed(len(sent), 60)
            assert await ids(w) == sent
            await sound(w)


async def _provoked(w: World, log: Path, stir: Callable[[], Awaitable[None]], seconds: float = 40.0) -> set[str]:
    """Offers more, and does what makes the engine use the call, until a call has failed."""
    sent: set[str] = set()
    limit = time.monotonic() + seconds
    while not injected(log):
        assert time.monotonic() < limit, "no call was made to fail"
        sent |= await offer(w, leaves_of(10))
        await stir()
        await asyncio.sleep(0.1)
    return sent


async def _stir(w: World) -> None:
    """Files come, are renamed, synced and go: a new segment of the log, a checkpoint, a table made and dropped."""
    with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        conn = await asyncpg.connect(w.url("postgres"), timeout=5)
        try:
            await conn.execute("drop table if exists dirt", timeout=5)
            await conn.execute("create table dirt as select repeat('x', 500) as t from generate_series(1, 2000)")
            await conn.execute("select pg_switch_wal()", timeout=5)
            # What fails here is the checkpoint: PostgreSQL must not forget what it could not sync.
            await conn.execute("checkpoint", timeout=10)
        finally:
            conn.terminate()


async def _running(w: World) -> None:
    """PostgreSQL starts over by itself after a PANIC; when it gave up, or waits for a child, as an operator would."""
    assert w.pg.process is not None

    async def answers() -> bool:
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return await w.size() >= 0
        return False

    with contextlib.suppress(subprocess.TimeoutExpired):
        await asyncio.to_thread(w.pg.process.wait, 0.5)
        w.pg.start()  # not by a thread: the engine ends with the thread that started it
    with contextlib.suppress(AssertionError):
        await until(answers, 60)
        return
    for pid in reversed(family(w.pg.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    w.pg.kill()
    w.pg.start()
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


# nats-py forgets the transport of a server that ends before it has said INFO.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. .function (_SelectorTransport|StreamWriter):pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.requirement("AU-310")
@pytest.mark.parametrize(("calls", "when"), BROKER, ids=[f"{c.split(',')[0]}-{w}" for c, w in BROKER])
async def test_io_errors_of_the_broker_lose_nothing_that_was_acknowledged(
    server: Postgres, tmp_path: Path, calls: str, when: str
) -> None:
    log = tmp_path / "strace"
    lines = leaves_of(120)
    with nats() as broker:
        async with world(broker, server) as w:
            acknowledged = await offer(w, lines[:40])
            async with w.writing(), w.publishing(), injecting(broker, calls, f"error=EIO:when={when}", log):
                for start in range(40, 100, 10):
                    acknowledged |= await offer(w, lines[start : start + 10], 0.7)
                await _until_failed(w, log, needed=calls != UNUSED_BY_BROKER)
            # A broker that cannot write is replaced: what it acknowledged is on its disk.
            broker.kill()
            await asyncio.to_thread(broker.start)
            await until(lambda: _connected(w))
            async with w.writing(), w.publishing():
                acknowledged |= await offer(w, lines[100:])

                async def complete() -> bool:
                    return acknowledged <= await ids(w)

                await until(complete, 60)
                await w.wait_signed(await w.size(), 30)
                await _gaps_name_what_never_came(w, lines)
            await sound(w)
    gc.collect()


async def _until_failed(w: World, log: Path, *, needed: bool) -> None:
    """A stream comes and goes: the broker writes, renames and removes files for it."""
    limit = time.monotonic() + (20 if needed else 2)
    while not injected(log):
        if time.monotonic() > limit:
            assert not needed, "no call was made to fail"
            return
        with contextlib.suppress(NatsError, NotConnected, TimeoutError, OSError, JetStreamError):
            await api(w.nc, "STREAM.CREATE.SCRATCH", {"name": "SCRATCH", "subjects": ["scratch"], "storage": "file"})
            await w.nc.request("scratch", b"x", timeout=1)
            await api(w.nc, "STREAM.DELETE.SCRATCH")
        await asyncio.sleep(0.05)


async def _gaps_name_what_never_came(w: World, lines: list[bytes]) -> None:
    """Of one producer, in order: a number below the highest that is not there was refused, and stands as a gap."""
    there = await ids(w)
    missing = {number for number, line in enumerate(lines) if json.loads(line)["id"] not in there}
    conn = await w.connect("audit_reader")
    try:
        found = await gaps.find(conn, silent_seconds=3600, missing_seconds=0)
    finally:
        await conn.close()
    named = {number for gap in found for first, last in gap.ranges for number in range(first, last + 1)}
    assert named == missing


async def _connected(w: World) -> bool:
    try:
        await w.nc.request("$JS.API.INFO", b"", timeout=1)
    except (NatsError, NotConnected, TimeoutError, OSError):
        return False
    return True
