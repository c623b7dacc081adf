"""How an MCP client is led to a sign-in: every way of mcp.md §6, in both eras, on two replicas."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from gateway.mcp_stage import OTHER, FakeDoor, Hub, Stage, messages_of, modern_meta, result_of, stage, tool
from wardmesh_common.contracts import Caller
from wardmesh_gateway.mcp_door import Progress, ToolResult
from wardmesh_gateway.mcp_sign_in import MAX_ROUNDS

pytestmark = pytest.mark.anyio
URL = "http://gateway.test/auth/store/login?session=one-time"
LINK = {"authorization_url": URL, "state": "s", "platform_id": "store", "auth_handle": "h", "message": "m"}
URLS = {"elicitation": {"form": {}, "url": {}}}
PLATFORM = {"platform_id": {"type": "string"}, "auth_handle": {"type": "string"}}
TOOLS = (
    tool("read", properties=PLATFORM),
    tool("start_auth", properties={**PLATFORM, "scopes": {"type": "array"}}, read_only=False),
    tool("wait_for_auth", properties={**PLATFORM, "timeout": {"type": "integer"}}, quick=False),
    tool("get_auth_status", properties=PLATFORM),
)
REFUSED = ToolResult(
    structured={"error": "session_error", "message": "Sign in first."}, is_error=True, sign_in=True, call_id="c1"
)
TIMED_OUT = ToolResult(structured={"error": "timeout", "message": "not yet"}, is_error=True)


@dataclass
class Clinic(FakeDoor):
    """A platform at which nobody has signed in until `signed_in` is set."""

    registry: Any = TOOLS
    signed_in: bool = False
    scopes: list[str] = field(default_factory=lambda: ["patient/*.rs"])
    failed: str = ""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], caller: Caller, *, progress: Progress | None = None
    ) -> ToolResult:
        self.calls.append((name, arguments, caller))
        if name == "start_auth":
            return ToolResult(structured=LINK)
        if name == "get_auth_status":
            scopes = self.scopes if self.signed_in else []
            return ToolResult(structured={"platform_id": "store", "authenticated": self.signed_in, "scopes": scopes})
        if name == "wait_for_auth":
            if self.failed:
                return ToolResult(structured={"error": self.failed, "message": "no"}, is_error=True)
            done = {"success": True, "platform_id": "store", "expires_in": 60, "message": "done"}
            return ToolResult(structured=done) if self.signed_in else TIMED_OUT
        return ToolResult(structured={"resourceType": "Patient"}) if self.signed_in else REFUSED

    @property
    def names(self) -> list[str]:
        return [name for name, _, _ in self.calls]


def params(name: str, **more: Any) -> dict[str, Any]:
    capabilities = more.pop("capabilities", URLS)
    meta = modern_meta(**{"io.modelcontextprotocol/clientCapabilities": capabilities})
    return {"name": name, "arguments": {"platform_id": "store", **more.pop("arguments", {})}, "_meta": meta, **more}


def again(result: dict[str, Any], action: str | None = "accept") -> dict[str, Any]:
    responses = {"inputResponses": {"sign_in": {"action": action}}} if action else {}
    return {"requestState": result["requestState"], **responses}


@pytest.mark.requirement("GW-7")
@pytest.mark.parametrize("name", ["read", "start_auth"])
async def test_a_modern_client_that_shows_links_is_asked_in_rounds(name: str) -> None:
    door = Clinic()
    async with stage(door=door) as one:
        first = result_of(await one.modern("tools/call", params(name)))
        assert first["resultType"] == "input_required"
        asked = first["inputRequests"]["sign_in"]
        assert asked["method"] == "elicitation/create"
        assert (asked["params"]["mode"], asked["params"]["url"]) == ("url", URL)
        assert "elicitationId" not in asked["params"]
        assert "one-time" not in first["requestState"]
        pending = result_of(await one.modern("tools/call", params(name, **again(first))))
        # The person has the link: the client only comes back with the state.
        assert (pending["resultType"], "inputRequests" in pending) == ("input_required", False)
        assert [call[1] for call in door.calls if call[0] == "wait_for_auth"] == [
            {"platform_id": "store", "timeout": 20}
        ]
        door.signed_in = True
        done = result_of(await one.modern("tools/call", params(name, **again(pending, None))))
        assert (done["resultType"], done["isError"]) == ("complete", False)
        expected = {"resourceType": "Patient"} if name == "read" else {"success": True}
        assert expected.items() <= done["structuredContent"].items()


async def test_a_person_who_says_no_ends_the_call_with_a_tool_error() -> None:
    door = Clinic()
    async with stage(door=door) as one:
        for action in ("decline", "cancel"):
            first = result_of(await one.modern("tools/call", params("read")))
            answer = result_of(await one.modern("tools/call", params("read", **again(first, action))))
            assert (answer["isError"], answer["structuredContent"]["error"]) == (True, "session_error")
        assert "wait_for_auth" not in door.names


async def test_a_sign_in_that_failed_or_never_ends_ends_the_rounds() -> None:
    door = Clinic()
    async with stage(door=door) as one:
        answer = result_of(await one.modern("tools/call", params("read")))
        rounds = 0
        while answer["resultType"] == "input_required":
            answer = result_of(await one.modern("tools/call", params("read", **again(answer, None))))
            rounds += 1
        assert rounds == MAX_ROUNDS
        assert answer["structuredContent"]["error"] == "timeout"
        assert answer["structuredContent"]["authorization_url"] == URL
        first = result_of(await one.modern("tools/call", params("read")))
        door.failed = "session_error"
        failed = result_of(await one.modern("tools/call", params("read", **again(first))))
        assert (failed["isError"], failed["structuredContent"]["error"]) == (True, "session_error")


@pytest.mark.requirement("GW-8")
async def test_the_state_of_a_round_holds_on_every_replica_and_for_nobody_and_nothing_else() -> None:
    hub = Hub()
    door, second = Clinic(), Clinic(signed_in=True)
    async with stage(door=door, hub=hub, name="gateway-1") as one, stage(door=second, hub=hub, name="gateway-2") as two:
        first = result_of(await one.modern("tools/call", params("read")))
        assert result_of(await two.modern("tools/call", params("read", **again(first))))["isError"] is False
        sealed = first["requestState"]
        middle = len(sealed) // 2
        changed = sealed[:middle] + ("A" if sealed[middle] != "A" else "B") + sealed[middle + 1 :]
        for refused in (
            await two.modern("tools/call", params("read", **again({"requestState": changed}))),
            await two.modern("tools/call", params("read", **again(first)), token=OTHER),
            await two.modern("tools/call", params("read", arguments={"platform_id": "own"}, **again(first))),
            await two.modern("tools/call", params("get_auth_status", **again(first))),
            await two.modern("tools/call", params("read", **again({"requestState": "made up"}))),
        ):
            error = messages_of(refused)[-1]["error"]
            assert (error["code"], error["message"]) == (-32602, "Invalid or expired requestState")


@pytest.mark.requirement("GW-7")
@pytest.mark.parametrize(
    "capabilities", [{}, {"elicitation": {}}, {"elicitation": {"form": {}}}, {"elicitation": None}]
)
async def test_nothing_is_asked_of_a_client_that_has_not_said_it_shows_links(capabilities: dict[str, Any]) -> None:
    door = Clinic()
    async with stage(door=door) as one:
        answer = result_of(await one.modern("tools/call", params("read", capabilities=capabilities)))
        assert (answer["resultType"], answer["isError"]) == ("complete", True)
        said = answer["structuredContent"]
        assert (said["authorization_url"], said["auth_handle"], said["error"]) == (URL, "h", "session_error")
        assert URL in answer["content"][0]["text"]
        started = result_of(await one.modern("tools/call", params("start_auth", capabilities=capabilities)))
        assert (started["isError"], started["structuredContent"]) == (False, LINK)


async def legacy_session(one: Stage, capabilities: dict[str, Any], version: str = "2025-11-25") -> dict[str, str]:
    hello = {
        "protocolVersion": version,
        "capabilities": capabilities,
        "clientInfo": {"name": "Old Client", "version": "1"},
    }
    answer = await one.legacy("initialize", hello, **{"mcp-protocol-version": version})
    assert answer.status_code == 200, answer.text
    return {"mcp-session-id": answer.headers["mcp-session-id"], "mcp-protocol-version": version}


async def call(one: Stage, name: str, headers: dict[str, str], **arguments: Any) -> dict[str, Any]:
    asked = {"name": name, "arguments": {"platform_id": "store", **arguments}}
    return messages_of(await one.legacy("tools/call", asked, **headers))[-1]


@pytest.mark.parametrize("name", ["read", "start_auth"])
async def test_a_client_of_2025_11_25_gets_its_own_error_and_repeats_the_call(name: str) -> None:
    door = Clinic()
    async with stage(door=door) as one:
        session = await legacy_session(one, URLS)
        error = (await call(one, name, session))["error"]
        assert error["code"] == -32042
        elicitation = error["data"]["elicitations"][0]
        assert (elicitation["mode"], elicitation["url"]) == ("url", URL)
        assert elicitation["elicitationId"]
        assert "one-time" not in elicitation["elicitationId"]
        door.signed_in = True
        answer = await call(one, name, session)
        assert answer["result"]["isError"] is False
        if name == "start_auth":
            assert answer["result"]["structuredContent"]["success"] is True
            # More than what has been granted is a new sign-in.
            assert (await call(one, name, session, scopes=["system/*.rs"]))["error"]["code"] == -32042


@pytest.mark.parametrize(
    ("capabilities", "version"), [({}, "2025-11-25"), ({"elicitation": {}}, "2025-11-25"), (URLS, "2025-06-18")]
)
async def test_every_other_old_client_gets_the_link_as_text(capabilities: dict[str, Any], version: str) -> None:
    async with stage(door=Clinic()) as one:
        session = await legacy_session(one, capabilities, version)
        started = (await call(one, "start_auth", session))["result"]
        assert (started["isError"], started["structuredContent"]["authorization_url"]) == (False, URL)
        refused = (await call(one, "read", session))["result"]
        assert (refused["isError"], refused["structuredContent"]["authorization_url"]) == (True, URL)


async def test_an_answer_names_its_record_in_the_result_and_on_the_short_way_in_a_header() -> None:
    door = Clinic(signed_in=True)
    named = ToolResult(structured={"ok": 1}, call_id="c" * 32, platform="store", instead_of="epic")

    async def answer(*_: Any, **__: Any) -> ToolResult:
        return named

    door.call_tool = answer  # type: ignore[method-assign]
    async with stage(door=door) as one:
        quick = await one.modern("tools/call", params("read"))
        slow = await one.modern("tools/call", params("wait_for_auth"))
        assert quick.headers["x-request-id"] == "c" * 32
        for got in (result_of(quick), result_of(slow)):
            assert (got["_meta"]["wardmesh/requestId"], got["_meta"]["wardmesh/platform"]) == ("c" * 32, "store")
            assert "io.modelcontextprotocol/serverInfo" in got["_meta"]
            assert len(got["content"]) == 2
            assert "stands in for 'epic'" in got["content"][1]["text"]
            assert got["structuredContent"] == {"ok": 1}


@pytest.mark.requirement("GW-9")
async def test_a_stream_that_has_nothing_to_say_shows_life_every_fifteen_seconds_and_is_not_buffered() -> None:
    """Both eras and a listening stream, side by side: it takes as long as the longest silence."""
    door = FakeDoor(hold=True)
    slow = {"name": "slow", "arguments": {}}
    async with stage(door=door) as one:
        listen = {"notifications": {"toolsListChanged": True}}
        calls = [
            asyncio.create_task(one.modern("tools/call", slow)),
            asyncio.create_task(one.legacy("tools/call", slow, **await legacy_session(one, {}))),
            asyncio.create_task(one.modern("subscriptions/listen", listen)),
        ]
        await asyncio.sleep(19)  # the silence begins when the last of them has been taken in
        door.release.set()
        one.face.drain()
        answers: list[httpx.Response] = await asyncio.wait_for(asyncio.gather(*calls), 60)
    for answer in answers:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        assert any(line.startswith(": ping") for line in answer.text.splitlines()), answer.text
