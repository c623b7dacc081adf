"""Replicas together, over a real broker: replies, cancels and change events find their way, hang-ups stop work."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client

from engines import nats
from gateway.mcp_post import WAIT, Post, request
from gateway.mcp_stage import BRIEF, OTHER, FakeDoor, Hub, Stage, modern_meta, result_of, stage
from wardmesh_common.contracts import EVENT_CATALOGUE_CHANGED, EVENT_POLICY_CHANGED
from wardmesh_common.questions import Changed
from wardmesh_gateway.fixtures.pack import build_conformance
from wardmesh_gateway.mcp import McpFace

pytestmark = pytest.mark.anyio


@pytest.fixture
def broker() -> Any:
    with nats() as engine:
        yield engine.url


class Connection:
    def __init__(self, nc: Client) -> None:
        self.nc, self.instance = nc, f"gateway-{secrets.token_hex(4)}"


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[Connection]:
    nc = Client()
    await nc.connect(url)
    try:
        yield Connection(nc)
    finally:
        await nc.close()


@asynccontextmanager
async def two_packs(url: str) -> AsyncIterator[tuple[McpFace, McpFace]]:
    """Two conformance faces, as two replicas."""
    async with connection(url) as here, connection(url) as there:
        one, _ = build_conformance(keys=[b"k" * 32], bus=here)
        two, _ = build_conformance(keys=[b"k" * 32], bus=there)
        async with one.lifespan(), two.lifespan():
            yield one, two


async def handshake(app: McpFace, name: str = "Asker") -> str:
    params = {"protocolVersion": "2025-11-25", "clientInfo": {"name": name, "version": "1"}}
    params |= {"capabilities": {"elicitation": {}}}
    return (await Post(app, request("initialize", params)).done()).headers["mcp-session-id"]


def legacy(session: str) -> dict[str, str]:
    return {"mcp-protocol-version": "2025-11-25", "mcp-session-id": session}


async def test_a_reply_reaches_the_waiting_replica_through_the_other_one(broker: str) -> None:
    async with two_packs(broker) as (one, two):
        session, stranger = await handshake(one), await handshake(one, "Stranger")
        call = Post(
            one, request("tools/call", {"name": "test_elicitation", "arguments": {"message": "?"}}), **legacy(session)
        )
        asked = await call.message(lambda m: m.get("method") == "elicitation/create")
        accepted = {"action": "accept", "content": {"username": "a", "email": "b"}}
        answer = {"jsonrpc": "2.0", "id": asked["id"], "result": accepted}
        foreign = answer | {"result": {"action": "decline"}}
        for header in (legacy(stranger), {"mcp-protocol-version": "2025-11-25"}):
            assert (await Post(two, foreign, **header).done()).status == 202
        assert (await Post(two, answer, **legacy(session)).done()).status == 202
        result = await call.message(lambda m: "result" in m)
        await call.done()
    assert '"username":"a"' in result["result"]["content"][0]["text"], "a stranger's reply must not have counted"
    assert asked["id"].count(".") == 2


@pytest.mark.requirement("GW-10")
async def test_a_legacy_cancel_sent_to_another_replica_stops_the_call(broker: str) -> None:
    door = FakeDoor(hold=True)
    async with connection(broker) as here, connection(broker) as there, pair(here, there, door) as (one, two):
        session = await one.initialize()
        foreign = await two.initialize(token=OTHER)
        headers = legacy(session) | {"host": "gateway.test"}
        call = Post(one.face, request("tools/call", {"name": "slow", "arguments": {}}, "7"), **headers)
        other = Post(one.face, request("tools/call", {"name": "read", "arguments": {}}, 9), **headers)
        await within(lambda: holding(door, 2))
        for number in (7, "9"):  # requests that do not exist: the number 7 is not the string "7"
            await two.post(cancel(number), **legacy(session))
        await two.post(cancel("7"), token=OTHER, **legacy(foreign))
        await two.post(cancel("7"))
        # Cancels are taken in order: this one stops its call before any of those above could still be waiting.
        await two.post(cancel(9), **legacy(session))
        assert await within(door.stopped.get) == "read"
        assert (await two.post(cancel("7"), **legacy(session))).status_code == 202
        assert await within(door.stopped.get) == "slow"
        await call.done()
        await other.done()


def cancel(number: int | str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}


async def holding(door: FakeDoor, count: int) -> None:
    while len(door.calls) < count:
        await asyncio.sleep(0.01)


@pytest.mark.requirement("GW-10")
@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("name", ["read", "slow"])
async def test_hanging_up_stops_the_work_whether_quick_or_not(era: str, name: str) -> None:
    door = FakeDoor(hold=True)
    async with stage(door=door) as s:
        headers = {"mcp-protocol-version": "2025-11-25"}
        params: dict[str, Any] = {"name": name, "arguments": {}}
        if era == "modern":
            headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": name}
            params["_meta"] = modern_meta()
        call = Post(s.face, request("tools/call", params), host="gateway.test", **headers)
        await within(door.holding.wait)
        call.gone.set()
        assert await within(door.stopped.get) == name
        await call.done()


@pytest.mark.requirement("X-28")
async def test_one_caller_who_hangs_up_takes_nobody_else_along() -> None:
    door = FakeDoor(hold=True)
    async with stage(door=door) as s:
        calls = [
            Post(
                s.face,
                request("tools/call", {"name": name, "arguments": {}}, number),
                host="gateway.test",
                **{"mcp-protocol-version": "2025-11-25"},
            )
            for number, name in enumerate(("slow", "read", "slow"))
        ]
        await within(lambda: holding(door, 3))
        calls[0].gone.set()
        assert await within(door.stopped.get) == "slow"
        door.release.set()
        for call in calls[1:]:
            assert '"ok":true' in (await call.done()).text.replace(" ", "")
        assert door.stopped.empty()


async def test_a_listening_stream_ends_in_order_when_its_token_expires() -> None:
    async with stage() as s:
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen", "host": "gateway.test"}
        headers["authorization"] = f"Bearer {BRIEF}"
        params = {"notifications": {"toolsListChanged": True}, "_meta": modern_meta()}
        stream = await Post(s.face, request("subscriptions/listen", params), **headers).done()
    assert [message.get("method", "result") for message in stream.messages()] == [
        "notifications/subscriptions/acknowledged",
        "result",
    ]


async def test_change_events_reach_listeners_at_the_other_replica(broker: str) -> None:
    async with two_packs(broker) as (one, two):
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}
        wanted = {"notifications": {"toolsListChanged": True}, "_meta": modern_meta()}
        stream = Post(one, request("subscriptions/listen", wanted), **headers)
        await stream.message(lambda m: m.get("method") == "notifications/subscriptions/acknowledged")
        trigger = {"name": "test_trigger_tool_change", "arguments": {}, "_meta": modern_meta()}
        named = {"mcp-method": "tools/call", "mcp-name": "test_trigger_tool_change"}
        await Post(two, request("tools/call", trigger), **headers | named).done()
        change = await stream.message(lambda m: m.get("method") == "notifications/tools/list_changed")
        one.drain()
        last = await stream.message(lambda m: "result" in m)
        await stream.done()
    assert change["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == 7
    assert last["id"] == 7


async def test_a_listener_is_granted_only_resources_that_it_can_read() -> None:
    async with stage() as s:
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen", "host": "gateway.test"}
        uris = ["fhir://platforms", "fhir://platform/store", "fhir://platform/secret", "file:///etc/passwd"]
        params = {"notifications": {"resourceSubscriptions": uris}, "_meta": modern_meta()}
        stream = Post(s.face, request("subscriptions/listen", params), **headers)
        granted = await stream.message(lambda m: "acknowledged" in m.get("method", ""))
        stream.gone.set()
        await stream.done()
    assert granted["params"]["notifications"]["resourceSubscriptions"] == uris[:2]


@pytest.mark.requirement("GW-8")
async def test_request_state_is_bound_to_its_request_and_opens_on_every_replica(broker: str) -> None:
    async with two_packs(broker) as (one, two):
        name = "test_input_required_result_request_state"
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": name}
        first = await Post(one, request("tools/call", {"name": name, "_meta": modern_meta()}), **headers).done()
        state = msgspec.json.decode(first.text)["result"]["requestState"]
        given = {"confirm": {"action": "accept", "content": {"ok": True}}}
        again = {"name": name, "inputResponses": given, "requestState": state, "_meta": modern_meta()}
        good = await Post(two, request("tools/call", again), **headers).done()
        bad = await Post(two, request("tools/call", again | {"requestState": state[:-6] + "AAAAAA"}), **headers).done()
        moved = await Post(two, request("tools/call", again | {"arguments": {"other": 1}}), **headers).done()
    assert "state-ok" in good.text
    for refused in (bad, moved):
        assert msgspec.json.decode(refused.text)["error"]["code"] == -32602
    assert "confirm-" not in state


@asynccontextmanager
async def pair(here: Connection, there: Connection, door: FakeDoor) -> AsyncIterator[tuple[Stage, Stage]]:
    """Two replicas of the product's face over one door."""
    async with stage(door=door, hub=Fixed(here)) as one, stage(door=door, hub=Fixed(there)) as two:
        yield one, two


class Fixed:
    """A connection in the place of the hub in memory."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def replica(self, name: str) -> Connection:
        return self._connection


async def within(wait: Callable[[], Awaitable[Any]]) -> Any:
    async with asyncio.timeout(WAIT):
        return await wait()


async def test_a_quick_legacy_call_answers_as_json_and_a_slow_one_on_a_stream() -> None:
    async with stage() as s:
        quick = await s.legacy("tools/call", {"name": "read", "arguments": {}})
        slow = await s.legacy("tools/call", {"name": "slow", "arguments": {}})
    assert quick.headers["content-type"].startswith("application/json")
    assert slow.headers["content-type"].startswith("text/event-stream")
    assert result_of(quick) == result_of(slow)


class Ears:
    """Collects the handlers of changed catalogues and policies."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    async def hear(self, subject: str, event_type: Any, handler: Any) -> None:
        self.handlers[subject] = handler


async def test_a_changed_policy_tells_listeners_that_their_tools_changed() -> None:
    ears = Ears()
    async with stage(hears=ears) as s:
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen", "host": "gateway.test"}
        params = {"notifications": {"toolsListChanged": True, "resourcesListChanged": True}, "_meta": modern_meta()}
        stream = Post(s.face, request("subscriptions/listen", params), **headers)
        await stream.message(lambda m: "acknowledged" in m.get("method", ""))
        await ears.handlers[EVENT_POLICY_CHANGED](Changed(version="2"))
        await ears.handlers[EVENT_CATALOGUE_CHANGED](Changed(version="2"))
        await stream.message(lambda m: m.get("method") == "notifications/tools/list_changed")
        await stream.message(lambda m: m.get("method") == "notifications/resources/list_changed")
        stream.gone.set()
        await stream.done()


def test_the_product_never_loads_the_fixtures_by_itself() -> None:
    program = "import sys, wardmesh_gateway.app; print([m for m in sys.modules if 'fixtures' in m])"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.strip() == "[]"


async def test_the_conformance_listener_answers_only_to_loopback_names_and_marks_its_callers() -> None:
    face, _ = build_conformance(keys=[b"k" * 32], bus=Hub().replica("gateway-0a"))
    async with face.lifespan():
        foreign = await Post(face, request("tools/list", {}), host="gateway.test").done()
        neighbour = await Post(face, request("tools/list", {}), host="localhost", origin="https://evil.test").done()
        near = await Post(face, request("tools/list", {}), host="127.0.0.1:9").done()
        assert not face.owns("/.well-known/oauth-protected-resource")
    assert [foreign.status, neighbour.status, near.status] == [421, 403, 200]
