"""Nothing leaves before its record is acknowledged: gateway and fhir-proxy, and one in between who holds acks back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import engines
from audit_world import Keys, until
from gateway.test_with_platform import Told, World, world
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import ASK_KEY
from wardmesh_common.questions import Ask, KeyAnswer, KeyQuestion
from wardmesh_common.record_keys import KeyRing
from wardmesh_common.record_nats import BusPublisher
from wardmesh_common.recorder import Recorder

pytestmark = pytest.mark.anyio
HELD_SECONDS = 0.3
MANY = 130  # more than one message of 128 events holds


@pytest.fixture(scope="module")
def nats() -> Iterator[engines.Nats]:
    with engines.nats() as engine:
        yield engine


@dataclass
class Intermediary:
    """Stands where the stream is: takes every record, and acknowledges it when it is told to. It hears the inboxes."""

    bus: Bus
    leaves: list[list[dict[str, Any]]] = field(default_factory=list[list[dict[str, Any]]])  # by message
    waiting: list[str] = field(default_factory=list[str])
    heard: list[bytes] = field(default_factory=list[bytes])  # what came into the gateway's inbox
    holding: bool = False
    acknowledged: int = 0

    def take(self, reply: str, data: bytes) -> None:
        self.leaves.append([json.loads(line) for line in data.splitlines()])
        self.waiting.append(reply)
        if not self.holding:
            self.release()

    def release(self, count: int | None = None) -> None:
        now, self.waiting = self.waiting[:count], self.waiting[count:] if count is not None else []
        for reply in now:
            self.acknowledged += 1
            self.bus.nc.lean_publish(reply, json.dumps({"stream": "AUDIT_IN", "seq": self.acknowledged}).encode())

    def events(self, kind: str) -> list[dict[str, Any]]:
        found = [leaf for message in self.leaves for leaf in message]
        return [leaf["data"] for leaf in found if leaf["type"].split(".")[3] == kind]


@dataclass
class Stage:
    world: World
    between: Intermediary

    async def held(self, answer: asyncio.Task[Told], messages: int) -> None:
        """So many messages wait for an acknowledgement and nothing of the answer has reached gateway or client."""
        await until(lambda: _there(len(self.between.waiting) >= messages))
        done, _ = await asyncio.wait({answer}, timeout=HELD_SECONDS)
        assert not done
        assert not [data for data in self.between.heard if b"resourceType" in data]


async def _there(found: bool) -> bool:
    return found


@asynccontextmanager
async def stage(nats: engines.Nats, folder: Path) -> AsyncGenerator[Stage]:
    bus = await Bus.connect("audit", nats.url, "")
    between = Intermediary(bus)
    keys = Keys()

    async def lend(question: KeyQuestion, _ask: Ask) -> KeyAnswer:
        return await keys.lend(question)

    def record(proxy: Bus) -> Recorder:
        async def ask(question: KeyQuestion) -> KeyAnswer:
            return await proxy.ask(ASK_KEY, question, KeyAnswer)

        return Recorder(
            BusPublisher(proxy, attempt_seconds=60),
            KeyRing(ask),
            service="fhir-proxy",
            instance=proxy.instance,
            deadline_seconds=10,
        )

    bus.nc.lean_subscribe("audit.in.>", lambda _s, reply, data, _h: between.take(reply.decode(), data))
    bus.nc.lean_subscribe("_INBOX_gateway.>", lambda _s, _r, data, _h: between.heard.append(data))
    await bus.answer(ASK_KEY, KeyQuestion, lend)
    try:
        async with world(nats, folder, record) as here:
            between.heard.clear()
            yield Stage(here, between)
            between.holding = False
            between.release()
    finally:
        await bus.close()


def bundle(count: int, size: int = 0) -> bytes:
    note = {"extension": [{"url": "http://x.test", "valueString": "x" * size}]} if size else {}
    entries = [
        {"resource": {"resourceType": "Patient", "id": f"p{number}", **note}, "search": {"mode": "match"}}
        for number in range(count)
    ]
    return json.dumps({"resourceType": "Bundle", "type": "searchset", "entry": entries}).encode()


@pytest.mark.requirement("AU-104")
@pytest.mark.parametrize("size", [10, 600_000], ids=["inside the reply", "in chunks behind it"])
async def test_no_byte_reaches_gateway_or_client_before_the_acknowledgement(
    nats: engines.Nats, tmp_path: Path, size: int
) -> None:
    async with stage(nats, tmp_path) as here:
        here.world.platform.answer = (200, bundle(1, size), {})
        here.between.holding = True
        answer = asyncio.create_task(here.world.get("/fhir/probe/Patient?name=a"))
        await here.held(answer, 1)
        assert here.world.asked, "the platform has answered long ago"
        here.between.holding = False
        here.between.release()
        told = await answer
        assert told.status == 200 and len(told.body) > size
        assert [data for data in here.between.heard if b"resourceType" in data], "the inbox would have shown it"


@pytest.mark.requirement("AU-111")
async def test_three_patients_are_three_events_and_many_in_two_messages_need_both(
    nats: engines.Nats, tmp_path: Path
) -> None:
    async with stage(nats, tmp_path) as here:
        here.world.platform.answer = (200, bundle(3), {})
        assert (await here.world.get("/fhir/probe/Patient?name=a")).status == 200
        events = here.between.events("search")
        assert len({event["patient"]["pseudonym"] for event in events}) == 3
        assert len({event["request"]["id"] for event in events}) == 1
        here.between.heard.clear()
        here.world.platform.answer = (200, bundle(MANY), {})
        here.between.holding = True
        answer = asyncio.create_task(here.world.get("/fhir/probe/Patient?name=b&_count=200"))
        await here.held(answer, 2)
        here.between.release(1)
        await here.held(answer, 1)
        here.between.holding = False
        here.between.release()
        assert (await answer).status == 200
        later = here.between.events("search")[3:]
        assert len({event["patient"]["pseudonym"] for event in later}) == MANY == len(later)
        assert len({event["request"]["id"] for event in later}) == 1


async def test_a_write_reaches_the_platform_only_after_its_intent_is_acknowledged(
    nats: engines.Nats, tmp_path: Path
) -> None:
    async with stage(nats, tmp_path) as here:
        patient = {"resourceType": "Patient", "id": "p1"}
        here.world.platform.answer = (200, json.dumps(patient).encode(), {})
        here.between.holding = True
        headers = {"content-type": "application/fhir+json"}
        writing = here.world.send("PUT", "/fhir/probe/Patient/p1", data=json.dumps(patient), headers=headers)
        answer = asyncio.create_task(writing)
        await here.held(answer, 1)
        assert [event["phase"] for event in here.between.events("write")] == ["intent"]
        assert not here.world.asked, "nothing was asked of the platform"
        here.between.release(1)
        await here.held(answer, 1)
        assert here.world.asked == ["/r4/Patient/p1"]
        here.between.holding = False
        here.between.release()
        assert (await answer).status == 200
        assert [event["phase"] for event in here.between.events("write")] == ["intent", "outcome"]
