"""A sign-in as a task: any replica tells how far it is, for the caller that began it and nobody else."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from gateway.mcp_stage import OTHER, FakeSteps, Hub, Stage, messages_of, result_of, stage
from gateway.test_mcp_sign_in import URL, Clinic, params
from wardmesh_gateway.mcp_door import Seen, ToolResult
from wardmesh_gateway.mcp_narrowing import NOT_ALLOWED

pytestmark = pytest.mark.anyio
EXTENSION = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
BOTH = {"elicitation": {"url": {}}, **EXTENSION}
DONE = Seen(result=ToolResult(structured={"success": True, "platform_id": "store", "expires_in": 60}))


async def ask(where: Stage, verb: str, task: str, *, capabilities: Any = BOTH, **more: Any) -> httpx.Response:
    token = {"token": more.pop("token")} if "token" in more else {}
    asked = params("", capabilities=capabilities)
    body = {"taskId": task, "_meta": asked["_meta"], **more}
    return await where.modern(f"tasks/{verb}", body, **token, mcp_name=task)


async def begun(where: Stage, name: str, **more: Any) -> dict[str, Any]:
    answer = result_of(await where.modern("tools/call", params(name, capabilities=BOTH, **more)))
    assert answer["resultType"] == "task"
    return answer


async def test_a_client_of_tasks_that_shows_links_gets_a_task_that_asks_for_the_sign_in() -> None:
    hub, steps = Hub(), FakeSteps()
    async with (
        stage(door=Clinic(), steps=steps, hub=hub, name="gateway-1") as one,
        stage(door=Clinic(), steps=steps, hub=hub, name="gateway-2") as two,
    ):
        task = await begun(one, "start_auth", arguments={"auth_handle": "mine"})
        assert task["status"] == "input_required"
        assert "one-time" not in task["taskId"]
        seen = result_of(await ask(two, "get", task["taskId"]))
        assert seen["inputRequests"]["sign_in"]["params"]["url"] == URL
        assert (seen["taskId"], seen["createdAt"], seen["ttlMs"]) == (
            task["taskId"],
            task["createdAt"],
            task["ttlMs"],
        )
        responses = {"sign_in": {"action": "accept"}}
        assert result_of(await ask(two, "update", task["taskId"], inputResponses=responses))["resultType"] == "complete"
        steps.seen = DONE
        ended = result_of(await ask(one, "get", task["taskId"]))
        assert (ended["status"], ended["result"]["isError"]) == ("completed", False)
        assert ended["result"]["structuredContent"]["success"] is True
        assert set(steps.asked) == {("look", "store", "mine")}


async def test_a_client_that_allows_itself_other_tools_gets_no_task_either() -> None:
    steps = FakeSteps()
    async with stage(door=Clinic(), steps=steps) as one:
        asked = params("wait_for_auth", capabilities=BOTH, arguments={"timeout": 50})
        answer = result_of(await one.modern("tools/call", asked, x_mcp_tools="read"))
        assert (answer["resultType"], answer["isError"]) == ("complete", True)
        assert NOT_ALLOWED in answer["content"][0]["text"]
        assert steps.asked == []


async def test_a_wait_becomes_a_task_only_while_there_is_something_to_wait_for() -> None:
    door, steps = Clinic(), FakeSteps()
    async with stage(door=door, steps=steps) as one:
        task = await begun(one, "wait_for_auth", arguments={"timeout": 50})
        assert task["status"] == "working"
        assert door.names == []
        seen = result_of(await ask(one, "get", task["taskId"]))
        assert (seen["status"], "inputRequests" in seen) == ("working", False)
        failed = ToolResult(structured={"error": "session_error", "message": "no"}, is_error=True)
        steps.seen = Seen(result=failed)
        ended = result_of(await ask(one, "get", task["taskId"]))
        assert (ended["status"], ended["result"]["isError"]) == ("completed", True)
        steps.seen, door.signed_in = DONE, True
        answer = result_of(await one.modern("tools/call", params("wait_for_auth", capabilities=BOTH)))
        assert (answer["resultType"], answer["structuredContent"]["success"]) == ("complete", True)


@pytest.mark.parametrize("way", ["cancel", "decline"])
async def test_a_task_that_is_called_off_or_declined_ends_the_sign_in(way: str) -> None:
    steps = FakeSteps()
    async with stage(door=Clinic(), steps=steps) as one:
        task = await begun(one, "start_auth")
        if way == "cancel":
            await ask(one, "cancel", task["taskId"])
        else:
            await ask(one, "update", task["taskId"], inputResponses={"sign_in": {"action": "decline"}})
        assert ("cancel", "store", "") in steps.asked
        assert result_of(await ask(one, "get", task["taskId"]))["status"] == "cancelled"


@pytest.mark.requirement("GW-7")
async def test_nothing_is_asked_that_was_not_declared() -> None:
    async with stage(door=Clinic()) as one:
        only_tasks = params("start_auth", capabilities=EXTENSION)
        plain = result_of(await one.modern("tools/call", only_tasks))
        assert (plain["resultType"], plain["structuredContent"]["authorization_url"]) == ("complete", URL)
        only_links = params("start_auth", capabilities={"elicitation": {"url": {}}})
        assert result_of(await one.modern("tools/call", only_links))["resultType"] == "input_required"


async def test_a_task_is_known_to_nobody_else_and_to_no_client_without_the_extension() -> None:
    steps = FakeSteps()
    async with stage(door=Clinic(), steps=steps) as one:
        task = (await begun(one, "start_auth"))["taskId"]
        middle = len(task) // 2
        changed = task[:middle] + ("A" if task[middle] != "A" else "B") + task[middle + 1 :]
        before = len(steps.asked)
        for verb in ("get", "update", "cancel"):
            for refused in (
                await ask(one, verb, task, token=OTHER),
                await ask(one, verb, changed),
                await ask(one, verb, "made-up"),
            ):
                error = messages_of(refused)[-1]["error"]
                assert (error["code"], error["message"]) == (-32602, "Unknown task")
            missing = messages_of(await ask(one, verb, task, capabilities={}))[-1]["error"]
            assert missing["code"] == -32021
        assert len(steps.asked) == before
