"""What is risky is announced: its intent is in the stream before the platform hears of it, whatever happens then."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from audit_proxy import emergency, proxy, put_in, stations
from audit_world import World, cancel, make_call, remove_streams, until, world
from engines import Nats, Postgres
from mesh.platform_server import Platform, platform_server
from wardmesh_audit.app import connector
from wardmesh_audit.watch import Watch
from wardmesh_common.bus import Bus
from wardmesh_common.contracts import Call
from wardmesh_common.vocabulary import Interaction, Resource

pytestmark = pytest.mark.anyio


def write() -> Call:
    call = make_call(1, interaction=Interaction.UPDATE, patient="slow")
    call.body, call.media_type = json.dumps({"resourceType": "Patient", "id": "slow"}).encode(), "application/fhir+json"
    return call


def export() -> Call:
    call = make_call(2, interaction=Interaction.OPERATION)
    call.operation, call.resource, call.headers = "$export", Resource(), {"prefer": "respond-async"}
    return call


def break_glass() -> Call:
    call = make_call(3, patient="slow")
    call.emergency = emergency("slow")
    return call


# How the call is made, the class of its records, what the platform hears of it.
RISKY = {
    "write": (write, "write", "PUT /Patient/slow"),
    "export": (export, "export", "GET /$export"),
    "break-glass": (break_glass, "break_glass", "GET /Patient/slow"),
}


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with platform_server() as started:
        yield started


async def events(w: World, call: Call) -> list[dict[str, Any]]:
    rows = await w.query("select leaf from event where request_id = $1 order by seq", call.id)
    return [json.loads(row["leaf"]) for row in rows]


def stored_messages(broker: Nats) -> int:
    """Asked of the server itself, from the thread in which the request has just arrived."""
    with urllib.request.urlopen(f"{broker.monitor}/jsz?streams=true", timeout=20) as answer:
        accounts = json.load(answer)["account_details"]
    return sum(s["state"]["messages"] for each in accounts for s in each["stream_detail"] if s["name"] == "AUDIT_IN")


async def arrived(auth: Bus, platform: Platform, make: Callable[[], Call], heard: str) -> Call:
    """The call of which the platform heard: a process that has just begun may not record its first intent in time."""
    replies: list[bytes] = []
    auth.nc.lean_subscribe(f"{auth.nc.inbox}.w.c", lambda *message: replies.append(message[2]))

    async def told() -> bool:
        return heard in platform.heard or len(replies) > refused

    for refused in range(10):
        call = make()
        call.id += f"-{refused}"
        put_in(auth, call)
        await until(told)
        if heard in platform.heard:
            return call
        assert b"audit_unavailable" in replies[-1]
    raise AssertionError("no intent was recorded in time")


@pytest.mark.requirement("AU-106")
@pytest.mark.parametrize("kind", RISKY)
async def test_a_proxy_killed_while_the_platform_works_leaves_an_intent_that_is_ended(
    broker: Nats, server: Postgres, platform: Platform, tmp_path: Path, kind: str
) -> None:
    make, event_class, heard = RISKY[kind]
    there: list[int] = []
    platform.reset(on_arrival=lambda: there.append(stored_messages(broker)))
    async with world(broker, server) as w, stations(broker.url) as auth:
        with proxy(broker.url, tmp_path, platform) as process:
            call = await arrived(auth, platform, make, heard)
            process.kill()
            await asyncio.to_thread(process.wait, 10)
        # The start of the producer and the intent are one message or two; the platform heard nothing before them.
        assert len(there) == 1 and there[0] >= 1
        async with w.writing():

            async def left() -> list[dict[str, Any]]:
                return await events(w, call)

            (intent,) = await until(left)
            assert intent["type"] == f"org.wardmesh.audit.{event_class}.v1"
            assert (intent["data"]["phase"], intent["data"]["outcome"]["reason"]) == ("intent", "intent")
            assert "enc" in intent["data"] or kind == "export"
            watch = Watch(w.nc, connector(w.url("audit_detect")), unterminated_seconds=0.1, silent_seconds=3600)
            task = asyncio.create_task(watch.run())
            try:

                async def ended() -> bool:
                    return len(await events(w, call)) == 2

                await until(ended)
            finally:
                await cancel(task)
            end = (await events(w, call))[1]["data"]
            assert (end["outcome"]["code"], end["corrects"]) == ("unterminated", intent["id"])


@pytest.mark.requirement("AU-106")
@pytest.mark.parametrize("kind", RISKY)
async def test_without_an_acknowledged_intent_the_platform_hears_nothing(
    broker: Nats, server: Postgres, platform: Platform, tmp_path: Path, kind: str
) -> None:
    make, _, _ = RISKY[kind]
    platform.reset()
    async with world(broker, server) as w, stations(broker.url) as auth:
        await remove_streams(w.nc)
        with proxy(broker.url, tmp_path, platform):
            refused = asyncio.get_running_loop().create_future()
            auth.nc.lean_subscribe(f"{auth.nc.inbox}.w.c", lambda *message: refused.set_result(message[2]))
            put_in(auth, make())
            reply = await asyncio.wait_for(refused, 60)
            assert b"audit_unavailable" in reply
            assert platform.paths == []
