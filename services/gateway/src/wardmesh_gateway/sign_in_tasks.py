"""A sign-in as a task: the id holds what the task is, auth holds how far it is, so any replica answers (mcp.md §6)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from wardmesh_gateway.mcp_door import SignInSteps, ToolResult
from wardmesh_gateway.mcp_results import tool_result
from wardmesh_gateway.mcp_tasks import Context, Json, Verb, moment
from wardmesh_gateway.mcp_visit import Visit, visitor
from wardmesh_gateway.task_ids import TaskIds

# A link is good for 15 minutes; afterwards there has to be time to fetch what became of it.
LIFE_SECONDS = 1800
POLL_MS = 3000
KEY = "sign_in"
_LABEL = b"wardmesh sign-in task v1"
_DEFAULT_WAIT = 300


class SignInTask(Struct, frozen=True, array_like=True, kw_only=True):
    """What a task id holds, sealed. Nothing about it is kept anywhere else."""

    platform: str
    principal: str  # digest of who asked
    started: float
    until: float  # when a wait is over for its caller; 0 = when the link is
    url: str  # "" = nothing is asked: somebody has shown the link already
    handle: str  # the auth_handle that the call carried

    def __repr__(self) -> str:
        return f"SignInTask({self.platform!r})"


class SignInTasks:
    """Begins tasks and tells of them."""

    def __init__(self, steps: SignInSteps, keys: Sequence[bytes], clock: Callable[[], float] = time.time) -> None:
        self._steps, self._clock = steps, clock
        self._ids = TaskIds(SignInTask, keys, _LABEL, life_seconds=LIFE_SECONDS, poll_ms=POLL_MS, clock=clock)

    def asking(self, platform: str, url: str, arguments: Mapping[str, Any], visit: Visit) -> Json:
        """A task that wants the person to open this link."""
        return self._begun(platform, arguments, visit, until=0.0, url=url)

    async def waiting(self, arguments: Mapping[str, Any], visit: Visit) -> Json | None:
        """A task instead of a call that blocks; None when there is nothing to wait for."""
        handle = str(arguments.get("auth_handle", ""))
        seen = await self._steps.look(arguments["platform_id"], handle, visit.caller)
        if seen.result is not None:
            return None
        until = self._clock() + arguments.get("timeout", _DEFAULT_WAIT)
        return self._begun(arguments["platform_id"], arguments, visit, until=until, url="")

    async def handle(self, verb: Verb, task_id: str, responses: Mapping[str, Any], ctx: Context) -> Json | None:
        visit = visitor(ctx)
        task = self._ids.open(task_id, visit.principal)
        if task is None:
            return None
        if verb == "get":
            return self._ids.envelope(task_id, task) | await self._state(task, visit)
        if verb == "cancel" or _declined(responses.get(KEY)):
            await self._steps.cancel(task.platform, task.handle, visit.caller)
        return {}

    async def _state(self, task: SignInTask, visit: Visit) -> Json:
        seen = await self._steps.look(task.platform, task.handle, visit.caller)
        now = moment(self._clock())
        if seen.cancelled:
            return {"status": "cancelled", "lastUpdatedAt": now}
        result = seen.result
        if result is None and task.until and task.until <= self._clock():
            result = _OVER
        if result is not None:
            return {"status": "completed", "lastUpdatedAt": now, "result": tool_result(result)}
        if not task.url:
            return {"status": "working"}
        return {"status": "input_required", "inputRequests": {KEY: link_request(task.platform, task.url)}}

    def _begun(self, platform: str, arguments: Mapping[str, Any], visit: Visit, *, until: float, url: str) -> Json:
        task = SignInTask(
            platform=platform,
            principal=visit.principal,
            started=self._clock(),
            until=until,
            url=url,
            handle=str(arguments.get("auth_handle", "")),
        )
        status: Literal["input_required", "working"] = "input_required" if url else "working"
        task_id = self._ids.seal(task)
        return {"resultType": "task"} | self._ids.envelope(task_id, task) | {"status": status}


def link_request(platform: str, url: str) -> Json:
    """The request that a client shows to its user as a link."""
    asked = {"mode": "url", "message": link_message(platform), "url": url}
    return {"method": "elicitation/create", "params": asked}


def link_message(platform: str) -> str:
    return f"Sign in at {platform} to go on."


_OVER = ToolResult(
    structured={"error": "timeout", "message": "The sign-in was not finished in time. Call wait_for_auth again."},
    is_error=True,
)


def _declined(response: Any) -> bool:
    """An answer that is not a yes. No answer at all, or one to another question, says nothing."""
    return isinstance(response, Mapping) and response.get("action") in ("decline", "cancel")
