"""tools/list and tools/call: filtered, validated without quoting, one submission each."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.mcp_stage import FakeDoor, messages_of, result_of, stage, tool
from wardmesh_gateway.mcp_door import ToolResult

pytestmark = pytest.mark.anyio
SECRET = "Maria-Canary-1957"


@pytest.mark.requirement("GW-4", "C-8")
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_the_list_holds_what_the_caller_may_call_sorted_and_private(era: str) -> None:
    async with stage(door=FakeDoor(denied=frozenset({"delete"}))) as s:
        result = result_of(await (s.modern if era == "modern" else s.legacy)("tools/list"))
    names = [entry["name"] for entry in result["tools"]]
    assert names == ["list_platforms", "read", "routed", "search", "slow"]
    assert result["tools"][1]["annotations"]["readOnlyHint"] is True
    if era == "modern":
        assert result["cacheScope"] == "private"
        assert result["ttlMs"] >= 0


@pytest.mark.requirement("GW-4")
async def test_long_lists_come_in_pages_that_survive_a_changed_list() -> None:
    many = tuple(tool(f"tool_{number:03}") for number in range(230))
    door = FakeDoor(registry=many)
    async with stage(door=door) as s:
        seen: list[str] = []
        cursor: dict[str, Any] = {}
        for _ in range(3):
            result = result_of(await s.modern("tools/list", dict(cursor)))
            seen += [entry["name"] for entry in result["tools"]]
            cursor = {"cursor": result.get("nextCursor")}
            door.registry = tuple(entry for entry in many if entry.name != "tool_000")
        assert "nextCursor" not in result
        broken = await s.modern("tools/list", {"cursor": "###"})
    assert seen == [entry.name for entry in many]
    assert broken.json()["error"]["code"] == -32602


async def test_a_profile_path_shows_and_calls_only_its_own_tools() -> None:
    async with stage() as s:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        shown = result_of(await s.post(body, path="/mcp/slow"))["tools"]
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "read", "arguments": {}}}
        foreign = messages_of(await s.post(call, path="/mcp/slow"))[-1]
        assert not s.face.owns("/mcp/other")
    assert [entry["name"] for entry in shown] == ["slow"]
    assert foreign["error"]["code"] == -32602


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"platform_id": {"name": SECRET}}, "platform_id has the wrong type"),
    ({"platform_id": "store", SECRET: 1}, "The arguments object has a parameter that is not known"),
    ({"params": {}}, "platform_id is required"),
    ({"platform_id": "store", "params": SECRET}, "params has the wrong type"),
]


@pytest.mark.requirement("GW-5")
@pytest.mark.parametrize(("arguments", "text"), WRONG)
async def test_wrong_arguments_are_tool_errors_that_quote_nothing(arguments: dict[str, Any], text: str) -> None:
    async with stage() as s:
        for call in (s.modern, s.legacy):
            answer = await call("tools/call", {"name": "search", "arguments": arguments})
            result = result_of(answer)
            assert result["isError"] is True
            assert result["structuredContent"] == {"error": "validation_error", "message": text}
            assert SECRET not in answer.text
        assert s.door.calls == []


@pytest.mark.requirement("GW-5")
async def test_an_unknown_tool_is_a_protocol_error_without_its_name() -> None:
    async with stage() as s:
        for call in (s.modern, s.legacy):
            answer = await call("tools/call", {"name": SECRET, "arguments": {}})
            assert messages_of(answer)[-1]["error"]["code"] == -32602
            assert SECRET not in answer.text


@pytest.mark.requirement("GW-5")
async def test_a_result_is_structured_and_exact_text_and_a_refusal_is_a_result() -> None:
    exact = ToolResult(structured={"value": 1.5}, text='{"value":1.50}')
    async with stage(door=FakeDoor(result=exact)) as s:
        result = result_of(await s.modern("tools/call", {"name": "read", "arguments": {}}))
        assert result["content"] == [{"type": "text", "text": '{"value":1.50}'}]
        assert result["structuredContent"] == {"value": 1.5}
        assert result["isError"] is False
        s.door.result = ToolResult(structured={"error": "forbidden", "message": "no"}, is_error=True)
        refused = result_of(await s.modern("tools/call", {"name": "read", "arguments": {}}))
        assert len(s.door.calls) == 2
    assert refused["isError"] is True
    assert refused["structuredContent"] == {"error": "forbidden", "message": "no"}


@pytest.mark.requirement("GW-5")
async def test_the_short_way_of_a_plain_call_and_the_way_through_the_sdk_give_the_same_answer() -> None:
    special = {"name": "read", "arguments": {"platform_id": "store"}, "inputResponses": {}}
    for refused in (False, True):
        result = ToolResult(text='{"value":1.25,"words":["ä",""]}', is_error=refused)
        async with stage(door=FakeDoor(result=result)) as s:
            short = await s.modern("tools/call", {"name": "read", "arguments": {"platform_id": "store"}})
            long = await s.modern("tools/call", special)
            assert len(s.door.calls) == 2
        assert messages_of(short) == messages_of(long)
        assert short.status_code == long.status_code
        assert short.headers.keys() == long.headers.keys()
        assert short.headers["content-type"] == long.headers["content-type"]


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_progress_is_reported_when_asked_for_and_only_grows(era: str) -> None:
    async with stage() as s:
        call = s.modern if era == "modern" else s.legacy
        answer = await call("tools/call", {"name": "read", "arguments": {}, "_meta": {"progressToken": "t1"}})
        plain = await call("tools/call", {"name": "read", "arguments": {}})
    notes = [m["params"] for m in messages_of(answer) if m.get("method") == "notifications/progress"]
    assert [note["progressToken"] for note in notes] == ["t1", "t1"]
    assert notes[0]["progress"] < notes[1]["progress"] == 1.0
    assert result_of(answer)["structuredContent"] == {"ok": True}
    assert [m for m in messages_of(plain) if "method" in m] == []


async def test_a_bug_behind_the_door_is_an_internal_error_without_its_text() -> None:
    class Broken(FakeDoor):
        async def call_tool(self, *args: Any, **fields: Any) -> ToolResult:
            raise RuntimeError(SECRET)

    async with stage(door=Broken()) as s:
        for call in (s.modern, s.legacy):
            answer = await call("tools/call", {"name": "read", "arguments": {}})
            assert messages_of(answer)[-1]["error"] == {"code": -32603, "message": "Internal error"}
