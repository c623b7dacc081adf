"""The tasks extension for the official client: it comes back for a task until that is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp_types import CallToolResult, Request, RequestParams, Result
from pydantic import ConfigDict, Field

TASKS = "io.modelcontextprotocol/tasks"
PAUSE, LIMIT = 0.1, 60.0


class Task(Result):
    """A result that says that it is a task."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)
    result_type: Literal["task"] = Field(default="task", alias="resultType")
    task_id: str = Field(alias="taskId")
    status: str = ""


class State(Result):
    model_config = ConfigDict(extra="allow", populate_by_name=True)
    status: str
    status_message: str | None = Field(default=None, alias="statusMessage")
    result: dict[str, Any] | None = None


class TaskId(RequestParams):
    task_id: str = Field(alias="taskId")


class TaskRequest(Request[TaskId, str]):
    """tasks/get, tasks/cancel."""

    name_param: ClassVar[str | None] = "taskId"


class Nothing(Result):
    model_config = ConfigDict(extra="allow")


class Follower(ClientExtension):
    """Remembers what it was told on the way."""

    identifier = TASKS

    def __init__(self) -> None:
        self.task = ""
        self.states: list[State] = []

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return (ResultClaim(result_type="task", model=Task, resolve=self._resolve),)

    async def _resolve(self, task: Task, context: ClaimContext) -> CallToolResult:
        self.task = task.task_id
        limit = time.monotonic() + LIMIT
        while True:
            state = await self.look(context.session)
            self.states.append(state)
            if state.status in ("completed", "failed", "cancelled"):
                return CallToolResult.model_validate(state.result or {"content": [], "isError": True})
            assert time.monotonic() < limit, "the task did not end in time"
            await asyncio.sleep(PAUSE)

    async def look(self, session: Any, task: str = "") -> State:
        asked = TaskRequest(method="tasks/get", params=TaskId(taskId=task or self.task))
        return await session.send_request(asked, State)

    async def cancel(self, session: Any) -> None:
        await session.send_request(TaskRequest(method="tasks/cancel", params=TaskId(taskId=self.task)), Nothing)
