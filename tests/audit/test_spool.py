"""The spool: policy may let a read pass while the stream is away; its record is on disk first and arrives unchanged."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from pathlib import Path

import msgspec
import pytest

from audit_world import Keys, World, make_call, make_outcome, until, world
from engines import Nats, Postgres, nats
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import Call
from wardmesh_common.errors import AuditUnavailable
from wardmesh_common.record_keys import KeyRing
from wardmesh_common.record_nats import BusPublisher
from wardmesh_common.recorder import Recorder
from wardmesh_common.spool import Spool, left_behind
from wardmesh_common.vocabulary import Obligations

pytestmark = pytest.mark.anyio


def emergency(number: int) -> Call:
    call = make_call(number)
    assert call.decision is not None
    call.decision = msgspec.structs.replace(call.decision, obligations=Obligations(spool=True))
    return call


class Outage:
    """A publisher that can be switched off."""

    def __init__(self, inner: BusPublisher) -> None:
        self._inner = inner
        self.off = False

    async def publish(self, subject: str, data: bytes, msg_id: str) -> None:
        if self.off:
            raise ConnectionError
        await self._inner.publish(subject, data, msg_id)


def station(bus: Bus, keys: Keys, spool: Path) -> tuple[Recorder, Outage]:
    outage = Outage(BusPublisher(bus))
    ring = KeyRing(keys.lend)
    made = Recorder(outage, ring, service="fhir-proxy", instance=bus.instance, spool_dir=spool, deadline_seconds=1.0)
    return made, outage


async def leaves(w: World) -> dict[str, bytes]:
    return {json.loads(row["leaf"])["id"]: row["leaf"] for row in await w.query("select leaf from event")}


def spooled(stored: dict[str, bytes]) -> list[dict[str, object]]:
    events = [json.loads(leaf)["data"] for leaf in stored.values()]
    return [event["facts"] for event in events if event["outcome"].get("reason") == "spooled"]


@pytest.mark.requirement("AU-114")
async def test_what_was_spooled_arrives_unchanged_and_one_event_names_the_range(
    broker: Nats, server: Postgres, tmp_path: Path
) -> None:
    async with world(broker, server) as w, w.writing():
        bus = await Bus.connect("fhir-proxy", w.nats.url, "")
        recorder, outage = station(bus, Keys(), tmp_path)
        try:
            await recorder.outcome(make_call(0), make_outcome("p1"))
            outage.off = True
            for number in (1, 2):
                await recorder.outcome(emergency(number), make_outcome("p1"))
            with pytest.raises(AuditUnavailable):  # not every route may
                await recorder.outcome(make_call(3), make_outcome("p1"))
            (file,) = tmp_path.iterdir()
            kept = [line for line in file.read_bytes().split(b"\n") if line]
            assert [json.loads(line)["data"]["request"]["id"] for line in kept] == ["call-1", "call-2"]
            outage.off = False
            await until(lambda: _gone(tmp_path))
        finally:
            await recorder.close()
            await bus.close()
        # start, four reads, one correction, the range, stop
        await w.wait_size(8)
        stored = await leaves(w)
        assert all(stored[json.loads(line)["id"]] == line for line in kept)
        assert [(fact["first_seq"], fact["last_seq"]) for fact in spooled(stored)] == [(2, 3)]
        withheld = await w.query("select request_id from event where outcome = 'withheld'")
        assert [row["request_id"] for row in withheld] == ["call-3"], "what was spooled was released"


async def _gone(directory: Path) -> bool:
    return not list(directory.iterdir())


@pytest.mark.requirement("AU-114")
async def test_the_spool_of_a_killed_process_is_delivered_by_the_next_one_once(
    broker: Nats, server: Postgres, tmp_path: Path
) -> None:
    async with world(broker, server) as w, w.writing():
        keys = Keys()
        bus = await Bus.connect("fhir-proxy", w.nats.url, "")
        dead, outage = station(bus, keys, tmp_path)
        await dead.outcome(make_call(0), make_outcome("p1"))
        outage.off = True
        for number in (1, 2, 3):
            await dead.outcome(emergency(number), make_outcome("p1"))
        (file,) = tmp_path.iterdir()
        text = file.read_bytes()
        # What a SIGKILL leaves: a file that nobody has locked, its last line cut.
        other = tmp_path / "spools"
        other.mkdir()
        (other / file.name).write_bytes(text + b'{"half of a')
        next_bus = await Bus.connect("fhir-proxy", w.nats.url, "")
        recorder, _ = station(next_bus, keys, other)
        try:
            await recorder.resume_spools()
            await until(lambda: _gone(other))
            await recorder.resume_spools()
        finally:
            await recorder.close()
            outage.off = False
            await dead.close()
            await bus.close()
            await next_bus.close()

        async def complete() -> bool:
            return len(spooled(await leaves(w))) >= 1 and await w.size() >= 9

        await until(complete)
        stored = await leaves(w)
        assert all(stored[json.loads(line)["id"]] == line for line in text.split(b"\n") if line)
        ranges = {(fact["producer"], fact["first_seq"], fact["last_seq"]) for fact in spooled(stored)}
        assert ranges == {(bus.instance, 2, 4)}
        rows = await w.query("select event_id from event")
        assert len(rows) == len({row["event_id"] for row in rows}) and b"half" not in b"".join(stored.values())


@pytest.mark.requirement("AU-114")
async def test_a_full_spool_disk_means_no_data(tmp_path: Path) -> None:
    with nats() as engine:
        bus = await Bus.connect("fhir-proxy", engine.url, "")
        blocked = tmp_path / "blocked"
        blocked.write_text("a file where the directory should be")
        try:
            for directory in (blocked, Path("/dev/full")):
                recorder, outage = station(bus, Keys(), directory)
                outage.off = True
                with pytest.raises(AuditUnavailable):
                    await recorder.outcome(emergency(1), make_outcome("p1"))
                recorder._lanes[0].batcher.abandon()  # pyright: ignore[reportPrivateUsage]
                await asyncio.sleep(0)
        finally:
            await bus.close()


@pytest.mark.requirement("AU-114")
def test_a_spool_that_holds_all_it_may_takes_nothing_and_keeps_whole_lines(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "a@0", max_bytes=100)
    spool.keep([b"x" * 40, b"y" * 40])
    with pytest.raises(OSError):
        spool.keep([b"z" * 40])
    (file,) = tmp_path.iterdir()
    assert file.read_bytes() == b"x" * 40 + b"\n" + b"y" * 40 + b"\n"
    assert list(left_behind(tmp_path)) == [], "its owner lives"
    copy = tmp_path / "b@0.spool"
    os.link(file, copy)
    spool.clear()
    (left,) = left_behind(tmp_path)
    assert left.leaves() == [b"x" * 40, b"y" * 40]
    left.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.requirement("AU-114")
def test_a_spool_that_is_taken_for_empty_while_it_is_made_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process looks for what was left behind just between the making of a file and its lock."""
    lock, looked = fcntl.flock, False

    def late(file: int, how: int) -> None:
        nonlocal looked
        if not looked:
            looked = True
            (left,) = left_behind(tmp_path)
            assert left.leaves() == []
            left.remove()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    spool = Spool(tmp_path, "a@0")
    spool.keep([b"x"])
    (file,) = tmp_path.iterdir()
    assert looked and file.read_bytes() == b"x\n"
    spool.clear()


def test_what_another_process_has_delivered_meanwhile_is_nobodys_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a@0.spool").write_bytes(b"x\n")
    lock = fcntl.flock

    def late(file: int, how: int) -> None:
        (tmp_path / "a@0.spool").unlink(missing_ok=True)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    assert list(left_behind(tmp_path)) == []
