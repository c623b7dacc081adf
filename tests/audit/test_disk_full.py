"""The disk of the database is full: nothing is acknowledged as stored, nothing is lost, and it goes on by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from audit_world import World, leaves_of, lost_connections_apart, until, world
from engines import Nats, Postgres, postgres
from wardmesh_audit.findings import VERIFIED
from wardmesh_audit.jetstream import api
from wardmesh_audit.streams import AUDIT_IN, consumer_of

pytestmark = pytest.mark.anyio

SIZE = 1200 * 1024 * 1024
EVENTS = 100_000


@contextlib.contextmanager
def small_disk(pg: Postgres) -> Iterator[Path]:
    """The data directory on a small file system of its own, as long as the block lasts."""
    data, seed = pg.home / "data", pg.home / "seed"
    pg.stop()
    facts = data.stat()
    data.rename(seed)
    data.mkdir()
    options = f"size={SIZE},mode=0700,uid={facts.st_uid},gid={facts.st_gid}"
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(data)], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("this account may not mount a small file system")
    try:
        subprocess.run(["cp", "-a", f"{seed}/.", str(data)], check=True)
        pg.start()
        yield data
    finally:
        pg.stop()
        subprocess.run(["umount", str(data)], check=True)


def fill(data: Path) -> Path:
    """Leaves a few megabytes: enough to start over, too little to work."""
    filler = data / "filler"
    free = shutil.disk_usage(data).free - 3 * 1024 * 1024
    with filler.open("wb") as out:
        os.posix_fallocate(out.fileno(), 0, free)
    return filler


async def pending(w: World) -> int:
    info = await api(w.nc, f"CONSUMER.INFO.{AUDIT_IN}.{consumer_of(0)}")
    return info["num_pending"] + info["num_ack_pending"]


async def answering(w: World) -> bool:
    with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return await w.size() >= 0
    return False


@pytest.mark.requirement("AU-305")
@pytest.mark.timeout(400)
async def test_a_full_disk_stops_the_writer_with_a_clear_error_and_drains_when_there_is_room(
    broker: Nats, caplog: pytest.LogCaptureFixture
) -> None:
    with postgres(durable=True) as pg, small_disk(pg) as data, lost_connections_apart():
        async with world(broker, pg) as w, w.writing() as (writer,), w.publishing():
            lines = leaves_of(EVENTS)
            await w.send(*lines[:100])
            await w.wait_signed(100)
            filler = fill(data)
            for start in range(100, EVENTS, 1000):
                parts = range(start, min(start + 1000, EVENTS), 100)
                await asyncio.gather(*(w.send(*lines[part : part + 100]) for part in parts))

            async def refused() -> bool:
                return writer.state.failures > 0

            await until(refused, 60)
            assert any(
                name in caplog.text for name in ("DiskFullError", "CannotConnectNowError", "ConnectionDoesNotExist")
            )
            assert writer.state.rows < EVENTS
            assert await pending(w) > 0, "what is not stored is not acknowledged"
            filler.unlink()
            if pg.process is not None and pg.process.poll() is not None:
                await asyncio.to_thread(pg.start)
            await until(lambda: answering(w), 60)
            await w.wait_signed(EVENTS, 150)
            report = await w.verify()
            assert report.exit_code == VERIFIED, report.as_text()
            rows = [str(row["event_id"]) for row in await w.query("select event_id from event")]
            assert len(rows) == EVENTS and set(rows) == {json.loads(line)["id"] for line in lines}
