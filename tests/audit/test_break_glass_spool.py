"""Break-glass while the stream or the whole server is away: answered from the spool, delivered once, unchanged."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit_proxy import emergency, proxy, put_in, stations
from audit_world import SMALL, World, make_call, remove_streams, until, world
from engines import Nats, Postgres, nats
from mesh.platform_server import Platform, platform_server
from wardmesh_audit.streams import provision
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import Call, Reply, decode_reply

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with platform_server() as started:
        yield started


def read(number: int, patient: str, *, urgent: bool) -> Call:
    call = make_call(number, patient=patient)
    call.emergency = emergency(patient) if urgent else None
    return call


class Replies:
    """What comes back to the gateway's inbox."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._came: asyncio.Queue[Reply] = asyncio.Queue()
        bus.nc.lean_subscribe(f"{bus.nc.inbox}.w.c", lambda *message: self._came.put_nowait(decode_reply(message[2])))

    async def to(self, call: Call) -> Reply:
        put_in(self._bus, call)
        return await asyncio.wait_for(self._came.get(), 60)

    async def warm(self) -> None:
        """A process that has just begun may not record in time: wait until it does."""

        async def answered() -> bool:
            return (await self.to(read(0, "p1", urgent=False))).status == 200

        await until(answered)


def kept(folder: Path) -> list[bytes]:
    """Every leaf that lies in the spool now."""
    return [line for file in folder.glob("*.spool") for line in file.read_bytes().split(b"\n") if line]


async def leaves(w: World) -> dict[str, bytes]:
    return {json.loads(row["leaf"])["id"]: row["leaf"] for row in await w.query("select leaf from event")}


def ranges(stored: dict[str, bytes]) -> list[dict[str, Any]]:
    events = [json.loads(leaf)["data"] for leaf in stored.values()]
    return [event["facts"] for event in events if event["outcome"].get("reason") == "spooled"]


async def delivered(w: World, spool: Path, lines: list[bytes]) -> None:
    """All of it is in the ledger once, byte for byte, one event names the range, and the file is gone."""

    async def told() -> bool:
        return not list(spool.iterdir()) and bool(ranges(await leaves(w)))

    await until(told, 60)
    stored = await leaves(w)
    assert len(stored) == await w.size(), "nothing is there twice"
    assert all(stored[json.loads(line)["id"]] == line for line in lines)
    numbers = [json.loads(line)["data"]["producer"]["seq"] for line in lines]
    (named,) = ranges(stored)
    assert (named["first_seq"], named["last_seq"]) == (min(numbers), max(numbers))


@pytest.mark.requirement("AU-114")
async def test_while_the_stream_is_away_only_break_glass_reads_are_answered_and_a_restart_loses_nothing(
    broker: Nats, server: Postgres, platform: Platform, tmp_path: Path
) -> None:
    platform.reset()
    spool = tmp_path / "spool"
    async with world(broker, server) as w, stations(broker.url) as bus:
        replies = Replies(bus)
        await remove_streams(w.nc)
        with proxy(broker.url, tmp_path, platform, WARDMESH_AUDIT_SPOOL_DIR=str(spool)):
            refused = await replies.to(read(1, "p1", urgent=False))
            assert (refused.status, refused.body) == (503, b"")
            assert refused.problem is not None and refused.problem.code == "audit_unavailable"
            answered = await replies.to(read(2, "p1", urgent=True))
            assert answered.status == 200 and json.loads(answered.body)["id"] == "p1"
            lines = kept(spool)
            phases = [(json.loads(line)["data"]["request"]["id"], json.loads(line)["data"]["phase"]) for line in lines]
            assert phases == [("call-2", "intent"), ("call-2", "outcome")], "on disk before the answer left"
            assert not any(secret in b"".join(lines) for secret in (b"without papers", b"Patient/p1")), (
                "sealed here too"
            )
        # The process was killed with everything still in its queue; the next one on this machine delivers.
        await provision(w.nc, SMALL)
        async with w.writing():
            with proxy(broker.url, tmp_path, platform, WARDMESH_AUDIT_SPOOL_DIR=str(spool)):
                await delivered(w, spool, lines)
                await replies.warm()
                assert (await replies.to(read(3, "p1", urgent=True))).status == 200
            assert not kept(spool), "with the stream back nothing is spooled"


@pytest.mark.requirement("AU-114")
async def test_a_server_that_stops_under_a_break_glass_read_finds_its_record_when_it_is_back(
    server: Postgres, platform: Platform, tmp_path: Path
) -> None:
    platform.reset()
    spool = tmp_path / "spool"
    with nats() as broker:
        async with world(broker, server) as w, stations(broker.url) as bus:
            with proxy(broker.url, tmp_path, platform, WARDMESH_AUDIT_SPOOL_DIR=str(spool)):
                await Replies(bus).warm()
                put_in(bus, read(1, "slow", urgent=True))
                await platform.asked_for("GET /Patient/slow")
                broker.kill()
                platform.hold.set()

                async def spooled() -> list[bytes]:
                    return kept(spool)

                lines = await until(spooled, 60)
                assert [json.loads(line)["data"]["phase"] for line in lines] == ["outcome"], "the intent had arrived"
                await asyncio.to_thread(broker.start)
                async with w.writing():
                    await delivered(w, spool, lines)
                    rows = await w.query("select phase from event where request_id = 'call-1' order by seq")
                    assert [row["phase"] for row in rows] == ["intent", "outcome"]


@pytest.mark.requirement("AU-114")
async def test_a_full_spool_disk_means_503_for_a_break_glass_read_as_well(
    broker: Nats, server: Postgres, platform: Platform, tmp_path: Path
) -> None:
    platform.reset()
    spool = tmp_path / "spool"
    spool.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4096", "none", str(spool)], check=False)
    if mounted.returncode:
        pytest.skip("this account may not mount a small file system")
    try:
        (spool / "filler").write_bytes(b"x" * 4096)
        async with world(broker, server) as w, stations(broker.url) as bus:
            replies = Replies(bus)
            await remove_streams(w.nc)
            with proxy(broker.url, tmp_path, platform, WARDMESH_AUDIT_SPOOL_DIR=str(spool)):
                refused = await replies.to(read(1, "p1", urgent=True))
                assert (refused.status, refused.body) == (503, b"")
                assert refused.problem is not None and refused.problem.code == "audit_unavailable"
                assert platform.paths == [], "without an intent on disk the platform is not asked"
    finally:
        subprocess.run(["umount", str(spool)], check=True)
