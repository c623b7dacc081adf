"""The tasks extension (SEP-2663): its three methods over whatever keeps the state of the tasks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, MISSING_REQUIRED_CLIENT_CAPABILITY, RequestParams
from pydantic import Field

TASKS_EXTENSION = "io.modelcontextprotocol/tasks"
Verb = Literal["get", "update", "cancel"]
Context = ServerRequestContext[Any, Any]
Json = dict[str, Any]

_NEEDED = {"requiredCapabilities": {"extensions": {TASKS_EXTENSION: {}}}}


def missing_tasks() -> MCPError:
    return MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "The tasks extension was not declared", _NEEDED)


def knows_tasks(ctx: Context) -> bool:
    declared = ctx.session.client_capabilities
    return declared is not None and TASKS_EXTENSION in (declared.extensions or {})


def moment(seconds: float) -> str:
    """A time as tasks carry it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TaskParams(RequestParams):
    """Parameters of tasks/get and tasks/cancel, and with responses of tasks/update."""

    task_id: str = Field(alias="taskId")
    input_responses: dict[str, Any] | None = Field(default=None, alias="inputResponses")


class Tasks(Protocol):
    """Finds a task on whichever replica it is asked for."""

    async def handle(self, verb: Verb, task_id: str, responses: Mapping[str, Any], ctx: Context, /) -> Json | None:
        """The task for `get`, nothing for the others; None = there is no such task for this caller."""
        ...


class AnyTasks:
    """Tasks of several kinds: their ids tell them apart."""

    def __init__(self, *kinds: Tasks) -> None:
        self._kinds = kinds

    async def handle(self, verb: Verb, task_id: str, responses: Mapping[str, Any], ctx: Context) -> Json | None:
        for kind in self._kinds:
            if (answer := await kind.handle(verb, task_id, responses, ctx)) is not None:
                return answer
        return None


class _Methods:
    """tasks/get, tasks/update, tasks/cancel."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks

    async def get(self, ctx: Context, params: TaskParams) -> Json:
        return await self._handle("get", ctx, params)

    async def update(self, ctx: Context, params: TaskParams) -> Json:
        return await self._handle("update", ctx, params)

    async def cancel(self, ctx: Context, params: TaskParams) -> Json:
        return await self._handle("cancel", ctx, params)

    async def _handle(self, verb: Verb, ctx: Context, params: TaskParams) -> Json:
        if not knows_tasks(ctx):
            raise missing_tasks()
        answer = await self._tasks.handle(verb, params.task_id, params.input_responses or {}, ctx)
        if answer is None:
            raise MCPError(INVALID_PARAMS, "Unknown task")
        return {"resultType": "complete"} | answer


def task_handlers(tasks: Tasks) -> dict[str, tuple[type[Any], Any]]:
    """The three methods as a server takes them."""
    methods = _Methods(tasks)
    return {
        "tasks/get": (TaskParams, methods.get),
        "tasks/update": (TaskParams, methods.update),
        "tasks/cancel": (TaskParams, methods.cancel),
    }
