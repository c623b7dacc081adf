"""An import or export job as MCP shows it: a task until its end, and progress while somebody watches (ADR 27)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR
from msgspec import Struct

from wardmesh_gateway.healthlake_words import READ_ONLY
from wardmesh_gateway.mcp_door import Door, McpTool, Progress, ToolResult
from wardmesh_gateway.mcp_results import tool_result
from wardmesh_gateway.mcp_tasks import Context, Json, Verb, moment
from wardmesh_gateway.mcp_visit import Visit, knows_tasks, visitor
from wardmesh_gateway.task_ids import TaskIds

Kind = Literal["import", "export"]
STARTS: dict[str, Kind] = {"start_fhir_import_job": "import", "start_fhir_export_job": "export"}
DESCRIBES: dict[str, Kind] = {"describe_fhir_import_job": "import", "describe_fhir_export_job": "export"}
TOLD = frozenset({"JobId", "JobStatus", "DatastoreId"})
RUNNING = frozenset({"SUBMITTED", "IN_PROGRESS", "STOP_REQUESTED"})
# Jobs run for hours; the id has to be good for as long.
LIFE_SECONDS = 24 * 3600
POLL_MS = 2000
# Somebody who watches is answered well before the minute that clients wait (mcp.md §6).
WATCH_SECONDS = 20.0
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 2.0
_LABEL = b"wardmesh job task v1"
_AWAY = frozenset({"unavailable", "busy", "audit_unavailable", "timeout", "throttled"})
_COUNTS = {
    "import": ("TotalNumberOfResourcesScanned", "TotalNumberOfImportedFiles"),
    "export": ("TotalNumberOfResourcesExported", "TotalNumberOfExportedFiles"),
}
Sleep = Callable[[float], Awaitable[None]]


class JobTask(Struct, frozen=True, array_like=True, kw_only=True):
    """What a task id holds, sealed; how far the job is, its datastore knows."""

    kind: Kind
    datastore: str
    region: str
    job: str
    principal: str
    started: float


class JobTasks:
    """Tells of jobs through the tools that describe them: each look is an ordinary call, decided and recorded."""

    def __init__(self, door: Door, keys: Sequence[bytes], clock: Callable[[], float] = time.time) -> None:
        self._door = door
        self._ids = TaskIds(JobTask, keys, _LABEL, life_seconds=LIFE_SECONDS, poll_ms=POLL_MS, clock=clock)

    def begun(self, kind: Kind, arguments: Mapping[str, Any], started: Mapping[str, Any], visit: Visit) -> Json:
        task = JobTask(
            kind=kind,
            datastore=started["DatastoreId"],
            region=arguments.get("region_name", ""),
            job=started["JobId"],
            principal=visit.principal,
            started=self._ids.clock(),
        )
        task_id = self._ids.seal(task)
        state = {"status": "working", "statusMessage": str(started["JobStatus"])}
        return {"resultType": "task"} | self._ids.envelope(task_id, task) | state

    async def handle(self, verb: Verb, task_id: str, responses: Mapping[str, Any], ctx: Context) -> Json | None:
        """Nothing is asked of a caller, so an update changes nothing. Cancelling stops the job. Raises MCPError."""
        visit = visitor(ctx)
        task = self._ids.open(task_id, visit.principal)
        if task is None:
            return None
        if verb == "get":
            return self._ids.envelope(task_id, task) | await self._state(task, visit)
        if verb == "cancel":
            await self._stop(task, visit)
        return {}

    async def _stop(self, task: JobTask, visit: Visit) -> None:
        """Through the door, as the tool that stops jobs: whoever may not stop it is told so, and it goes on."""
        if visit.narrowing.read_only:
            raise MCPError(INTERNAL_ERROR, READ_ONLY)
        stopped = await self._door.call_tool(f"stop_fhir_{task.kind}_job", _asked(task), visit.caller)
        if stopped.is_error:
            raise MCPError(INTERNAL_ERROR, str(stopped.structured.get("message", "The job cannot be stopped now.")))

    async def _state(self, task: JobTask, visit: Visit) -> Json:
        seen = await self._door.call_tool(f"describe_fhir_{task.kind}_job", _asked(task), visit.caller)
        now = {"lastUpdatedAt": moment(self._ids.clock())}
        if seen.is_error:
            if seen.structured.get("error") in _AWAY:
                return {"status": "working"}  # nobody can tell just now; the client asks again
            return now | {"status": "completed", "result": tool_result(seen)}
        properties = properties_of(task.kind, seen.structured)
        if properties["JobStatus"] in RUNNING:
            return now | {"status": "working", "statusMessage": told(task.kind, properties)}
        if properties["JobStatus"] == "STOPPED":
            return now | {"status": "cancelled"}
        return now | {"status": "completed", "result": tool_result(_ended(properties, seen.call_id))}


def _asked(task: JobTask) -> dict[str, str]:
    asked = {"datastore_id": task.datastore, "job_id": task.job}
    return asked | ({"region_name": task.region} if task.region else {})


class JobWatch:
    """What MCP adds to the tools of jobs."""

    def __init__(
        self,
        door: Door,
        tasks: JobTasks,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._door, self._tasks, self._clock, self._sleep = door, tasks, clock, sleep

    async def after(
        self, tool: McpTool, arguments: Mapping[str, Any], visit: Visit, result: ToolResult, progress: Progress | None
    ) -> ToolResult | Json:
        """The result as it is; a task, for who knows tasks; the last of several looks, for who asked for progress."""
        if result.is_error:
            return result
        started = STARTS.get(tool.shown_as or tool.name)
        if started is not None and knows_tasks(visit) and result.structured.keys() >= TOLD:
            return self._tasks.begun(started, arguments, result.structured, visit)
        described = DESCRIBES.get(tool.name)
        if described is None or progress is None:
            return result
        return await self._watched(tool.name, described, arguments, visit, result, progress)

    async def _watched(
        self,
        name: str,
        kind: Kind,
        arguments: Mapping[str, Any],
        visit: Visit,
        result: ToolResult,
        progress: Progress,
    ) -> ToolResult:
        end, pause = self._clock() + WATCH_SECONDS, FIRST_PAUSE
        while not result.is_error:
            properties = properties_of(kind, result.structured)
            await progress(float(count_of(kind, properties)), None, told(kind, properties))
            if properties["JobStatus"] not in RUNNING or self._clock() + pause > end:
                break
            await self._sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)
            result = await self._door.call_tool(name, dict(arguments), visit.caller)
        return result


def properties_of(kind: Kind, described: Mapping[str, Any]) -> Mapping[str, Any]:
    """A control plane that answers well, but not with what was asked for, tells of no state: nothing runs there."""
    return {"JobStatus": "", **described.get(f"{kind.title()}JobProperties", {})}


def count_of(kind: Kind, properties: Mapping[str, Any]) -> int:
    return properties.get("JobProgressReport", {}).get(_COUNTS[kind][0], 0)


def told(kind: Kind, properties: Mapping[str, Any]) -> str:
    """Numbers only: what is imported or exported stays out of it."""
    files = properties.get("JobProgressReport", {}).get(_COUNTS[kind][1], 0)
    return f"{properties['JobStatus']}: {count_of(kind, properties)} resources, {files} files done"


def _ended(properties: Mapping[str, Any], call_id: str) -> ToolResult:
    """In the form in which the start of a job answers; a job that failed says why."""
    said = {name: properties[name] for name in sorted(TOLD) if name in properties}
    failed = properties["JobStatus"] in ("FAILED", "")
    said |= {"Message": properties["Message"]} if failed and "Message" in properties else {}
    return ToolResult(structured=said, is_error=failed, call_id=call_id)
