"""Jobs as tasks and with progress: what is asked of the door, how long, and who may know (ADR 27)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from gateway.healthlake_stage import STORE
from gateway.mcp_stage import OTHER, FakeDoor, Hub, Stage, messages_of, result_of, stage, tool
from wardmesh_common.contracts import Caller
from wardmesh_common.vocabulary import Agent
from wardmesh_gateway.healthlake_jobs import WATCH_SECONDS, JobTasks, JobWatch
from wardmesh_gateway.mcp_door import McpTool, Progress, ToolResult
from wardmesh_gateway.mcp_visit import Visit

pytestmark = pytest.mark.anyio
START, DESCRIBE = "start_fhir_import_job", "describe_fhir_import_job"
PLACE = {"datastore_id": STORE, "job_id": "j1"}
_open: dict[str, Any] = {name: {"type": "string"} for name in ("datastore_id", "job_id", "region_name")}
TOOLS = (
    tool(START, properties=_open, read_only=False),
    tool(DESCRIBE, properties=_open),
    tool("start_fhir_export_job", properties=_open, read_only=False),
    tool("describe_fhir_export_job", properties=_open),
    tool("stop_fhir_import_job", properties=_open, read_only=False),
    tool("stop_fhir_export_job", properties=_open, read_only=False),
)
EXTENSION = {"extensions": {"io.modelcontextprotocol/tasks": {}}}


@dataclass
class Lake(FakeDoor):
    """A door behind which one job runs; `states` are what a look finds, the last one again and again."""

    registry: tuple[McpTool, ...] = TOOLS
    states: list[tuple[str, int]] = field(default_factory=lambda: [("IN_PROGRESS", 1)])
    away: bool = False
    looks: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    stops: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    no_stop: str = ""  # with which words a stop is refused

    async def call_tool(
        self, name: str, arguments: dict[str, Any], caller: Caller, *, progress: Progress | None = None
    ) -> ToolResult:
        if name.startswith("start"):
            return ToolResult(structured={"JobId": "j1", "JobStatus": "SUBMITTED", "DatastoreId": STORE})
        if name.startswith("stop"):
            self.stops.append((name, arguments))
            if self.no_stop:
                return ToolResult(structured={"error": "forbidden", "message": self.no_stop}, is_error=True)
            return ToolResult(structured={"JobId": "j1", "JobStatus": "STOP_REQUESTED", "DatastoreId": STORE})
        self.looks.append((name, arguments))
        if self.away:
            return ToolResult(structured={"error": "unavailable", "message": "HTTP 503: away"}, is_error=True)
        status, count = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        kind = "Import" if "import" in name else "Export"
        counted = "TotalNumberOfResourcesScanned" if kind == "Import" else "TotalNumberOfResourcesExported"
        said = {"JobId": "j1", "JobStatus": status, "DatastoreId": STORE, "JobProgressReport": {counted: count}}
        said |= {"Message": "There is nothing to import."} if status == "FAILED" else {}
        return ToolResult(structured={f"{kind}JobProperties": said})


def params(name: str, arguments: dict[str, Any] | None = None, *, tasks: bool = True, **meta: Any) -> dict[str, Any]:
    declared = {"io.modelcontextprotocol/clientCapabilities": EXTENSION if tasks else {}}
    return {"name": name, "arguments": arguments or {"datastore_id": STORE}, "_meta": declared | meta}


async def ask(where: Stage, verb: str, task: str, **more: Any) -> httpx.Response:
    body = {"taskId": task, "_meta": params("")["_meta"]}
    return await where.modern(f"tasks/{verb}", body, mcp_name=task, **more)


async def begun(where: Stage, name: str = START, **arguments: Any) -> str:
    answer = result_of(await where.modern("tools/call", params(name, {"datastore_id": STORE, **arguments})))
    assert (answer["resultType"], answer["status"], answer["statusMessage"]) == ("task", "working", "SUBMITTED")
    return answer["taskId"]


async def test_a_started_job_is_a_task_that_any_replica_follows_to_its_end() -> None:
    hub = Hub()
    lake = Lake(states=[("IN_PROGRESS", 5), ("COMPLETED", 9)])
    async with stage(door=lake, hub=hub, name="gateway-1") as one, stage(door=lake, hub=hub, name="gateway-2") as two:
        task = await begun(one)
        assert "j1" not in task
        working = result_of(await ask(two, "get", task))
        assert (working["status"], working["statusMessage"]) == (
            "working",
            "IN_PROGRESS: 5 resources, 0 files done",
        )
        ended = result_of(await ask(one, "get", task))
        assert (ended["status"], ended["result"]["isError"]) == ("completed", False)
        assert ended["result"]["structuredContent"] == {
            "DatastoreId": STORE,
            "JobId": "j1",
            "JobStatus": "COMPLETED",
        }
        assert lake.looks == [(DESCRIBE, PLACE)] * 2


@pytest.mark.parametrize(
    ("state", "status", "failed"),
    [("FAILED", "completed", True), ("COMPLETED_WITH_ERRORS", "completed", False), ("STOPPED", "cancelled", None)],
)
async def test_every_end_of_a_job_is_an_end_of_its_task(state: str, status: str, failed: bool | None) -> None:
    async with stage(door=Lake(states=[(state, 0)])) as one:
        task = await begun(one, "start_fhir_export_job")
        ended = result_of(await ask(one, "get", task))
        assert (ended["status"], ended.get("result", {}).get("isError")) == (status, failed)
        if failed:
            assert ended["result"]["structuredContent"]["Message"] == "There is nothing to import."


@pytest.mark.parametrize("progress", [{}, {"progressToken": "p"}])
async def test_an_answer_without_the_job_is_passed_on_and_ends_its_task(progress: dict[str, str]) -> None:
    class Odd(Lake):
        odd = False

        async def call_tool(self, *asked: Any, **more: Any) -> ToolResult:
            return ToolResult(structured={"Odd": 1}) if self.odd else await super().call_tool(*asked, **more)

    lake = Odd()
    async with stage(door=lake) as one:
        task = await begun(one)
        lake.odd = True
        ended = result_of(await ask(one, "get", task))
        assert (ended["status"], ended["result"]["isError"]) == ("completed", True)
        for name in (START, DESCRIBE):
            answer = result_of(await one.modern("tools/call", params(name, PLACE, **progress)))
            assert (answer["isError"], answer["structuredContent"]) == (False, {"Odd": 1})


async def test_who_cannot_be_asked_just_now_has_not_ended() -> None:
    lake = Lake(away=True)
    async with stage(door=lake) as one:
        task = await begun(one)
        assert result_of(await ask(one, "get", task))["status"] == "working"
        lake.away = False
        assert result_of(await ask(one, "get", task))["status"] == "working"


@pytest.mark.parametrize("kind", ["import", "export"])
async def test_cancelling_a_task_stops_its_job_through_the_door_of_any_replica(kind: str) -> None:
    hub = Hub()
    lake = Lake(states=[("STOP_REQUESTED", 3), ("STOPPED", 3)])
    async with stage(door=lake, hub=hub, name="gateway-1") as one, stage(door=lake, hub=hub, name="gateway-2") as two:
        task = await begun(one, f"start_fhir_{kind}_job", region_name="eu-west-1")
        for _ in range(2):
            assert result_of(await ask(two, "cancel", task))["resultType"] == "complete"
        assert lake.stops == [(f"stop_fhir_{kind}_job", {**PLACE, "region_name": "eu-west-1"})] * 2
        stopping = result_of(await ask(one, "get", task))
        assert (stopping["status"], stopping["statusMessage"][:14]) == ("working", "STOP_REQUESTED")
        assert result_of(await ask(two, "get", task))["status"] == "cancelled"


async def test_a_task_whose_job_may_not_be_stopped_says_so_and_goes_on() -> None:
    lake = Lake(no_stop="AWS HealthLake Error (AccessDeniedException): no rule")
    async with stage(door=lake) as one:
        task = await begun(one)
        for more, text in (({}, lake.no_stop), ({"x_mcp_readonly": "true"}, "read-only mode")):
            told = messages_of(await ask(one, "cancel", task, **more))[-1]["error"]
            assert text in told["message"]
        assert messages_of(await ask(one, "cancel", task, token=OTHER))[-1]["error"]["message"] == "Unknown task"
        assert len(lake.stops) == 1, "a client that takes writing away from itself, and strangers, stop nothing"
        assert result_of(await ask(one, "update", task))["resultType"] == "complete"
        assert result_of(await ask(one, "get", task))["status"] == "working"
        assert len(lake.stops) == 1


async def test_a_client_without_the_extension_gets_the_answer_of_aws() -> None:
    async with stage(door=Lake()) as one:
        answer = result_of(await one.modern("tools/call", params(START, tasks=False)))
        assert (answer["resultType"], answer["structuredContent"]["JobStatus"]) == ("complete", "SUBMITTED")


async def test_a_job_s_task_is_known_to_nobody_else() -> None:
    lake = Lake()
    async with stage(door=lake) as one:
        task = await begun(one)
        for refused in (await ask(one, "get", task, token=OTHER), await ask(one, "get", f"{task}x")):
            assert messages_of(refused)[-1]["error"]["message"] == "Unknown task"
        assert lake.looks == []


async def test_describing_with_a_progress_token_tells_of_every_step_and_without_one_looks_once() -> None:
    lake = Lake(states=[("SUBMITTED", 0), ("IN_PROGRESS", 500), ("COMPLETED", 900)])
    async with stage(door=lake) as one:
        told = messages_of(await one.modern("tools/call", params(DESCRIBE, PLACE, tasks=False, progressToken="t")))
        notes = [message["params"] for message in told if message.get("method") == "notifications/progress"]
        steps = [(note["progress"], note["message"]) for note in notes if "resources" in note["message"]]
        assert [message for _, message in steps] == [
            "SUBMITTED: 0 resources, 0 files done",
            "IN_PROGRESS: 500 resources, 0 files done",
            "COMPLETED: 900 resources, 0 files done",
        ]
        assert [progress for progress, _ in steps][1:] == [500, 900]
        assert told[-1]["result"]["structuredContent"]["ImportJobProperties"]["JobStatus"] == "COMPLETED"
        looks = len(lake.looks)
        await one.modern("tools/call", params(DESCRIBE, PLACE, tasks=False))
        assert len(lake.looks) == looks + 1


async def test_a_watch_ends_after_its_time_with_what_is_known_then() -> None:
    now = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        await asyncio.sleep(0)

    async def progress(done: float, total: float | None, message: str | None) -> None:
        """Nobody listens here."""

    lake = Lake(states=[("IN_PROGRESS", 7)])
    watch = JobWatch(lake, JobTasks(lake, [b"k" * 32]), clock=lambda: now, sleep=sleep)
    visit = Visit(caller=Caller(agent=Agent()), principal="p")
    first = await lake.call_tool(DESCRIBE, PLACE, visit.caller)
    found = await watch.after(TOOLS[1], PLACE, visit, first, progress)
    assert isinstance(found, ToolResult)
    assert found.structured["ImportJobProperties"]["JobStatus"] == "IN_PROGRESS"
    assert now <= WATCH_SECONDS
    assert 8 < len(lake.looks) < 20
