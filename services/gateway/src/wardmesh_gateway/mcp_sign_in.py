"""What an MCP client is shown when a person has to sign in at a platform: one decision for both eras (mcp.md §6)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec
from mcp.shared.exceptions import UrlElicitationRequiredError
from mcp_types import CallToolRequestParams, ElicitRequestURLParams, ElicitResult
from mcp_types.version import LATEST_HANDSHAKE_VERSION, MODERN_PROTOCOL_VERSIONS
from msgspec import Struct

from wardmesh_gateway.mcp_door import Door, Progress, ToolResult
from wardmesh_gateway.mcp_tasks import Json
from wardmesh_gateway.mcp_visit import Visit, knows_tasks
from wardmesh_gateway.sign_in_link import linked
from wardmesh_gateway.sign_in_tasks import KEY, SignInTasks, link_message, link_request

START, WAIT, STATUS = "start_auth", "wait_for_auth", "get_auth_status"
WAIT_SECONDS = 20
# Clients repeat a call ten times at most; the last word is then an ordinary answer with the link.
MAX_ROUNDS = 8


class Way(Enum):
    """How this client can be brought to show a link to its user."""

    TASK = "task"  # it asks after the sign-in itself, and answers when it has shown the link
    ROUNDS = "input_required"  # it repeats the call with our sealed state
    ERROR = "-32042"  # it opens the link and repeats the call
    TEXT = "text"  # every other client: the model passes the link on


class Round(Struct, frozen=True, kw_only=True):
    """`requestState`: sealed on its way, bound to principal, tool and arguments by the SDK's boundary (GW-8)."""

    platform: str
    url: str
    number: int = 1


def way_of(visit: Visit, tool: str) -> Way:
    """`elicitation: {}` does not say that links are shown: some clients that cannot do it declare just that."""
    if "elicitation.url" not in visit.caller.agent.capabilities:
        return Way.TEXT
    if visit.version in MODERN_PROTOCOL_VERSIONS:
        return Way.TASK if tool == START and knows_tasks(visit) else Way.ROUNDS
    return Way.ERROR if visit.version == LATEST_HANDSHAKE_VERSION else Way.TEXT


class SignInRounds:
    """Everything here goes through the door like any call of the same tools."""

    def __init__(self, door: Door, tasks: SignInTasks) -> None:
        self._door, self._tasks = door, tasks

    async def before(self, tool: str, arguments: Mapping[str, Any], visit: Visit) -> ToolResult | Json | None:
        """What takes the place of the call: a task for a wait, or a sign-in that is done already."""
        if tool == WAIT and knows_tasks(visit):
            return await self._tasks.waiting(arguments, visit)
        if tool == START and way_of(visit, tool) is Way.ERROR:
            return await self._repeated(arguments, visit)
        return None

    async def _repeated(self, arguments: Mapping[str, Any], visit: Visit) -> ToolResult | None:
        """A client of -32042 repeats `start_auth`: when the sign-in has been done in between, that is the answer."""
        status = await self._door.call_tool(STATUS, _only(arguments, "platform_id", "auth_handle"), visit.caller)
        said = {} if status.is_error else status.structured
        wanted = set(arguments.get("scopes", ()))
        if not said.get("authenticated") or not wanted <= set(said.get("scopes") or ()):
            return None
        return _done(said, status.call_id)

    async def after(
        self, tool: str, arguments: Mapping[str, Any], visit: Visit, result: ToolResult
    ) -> ToolResult | Json:
        """The result as it is, or what leads to a sign-in. Raises UrlElicitationRequiredError."""
        if tool == START and not result.is_error:
            return self._offer(tool, arguments, visit, result, result)
        if result.sign_in:
            started = await self._door.call_tool(START, _only(arguments, "platform_id", "auth_handle"), visit.caller)
            if not started.is_error:
                return self._offer(tool, arguments, visit, started, _with_link(result, started))
        return result

    async def resume(
        self, params: CallToolRequestParams, visit: Visit, progress: Progress | None
    ) -> ToolResult | Json | None:
        """The next round of a call that waits for a sign-in; None = signed in, now the call itself."""
        state = msgspec.json.decode(params.request_state or "", type=Round)
        response = (params.input_responses or {}).get(KEY)
        if isinstance(response, ElicitResult) and response.action != "accept":
            return _failed("session_error", "The sign-in was declined.")
        waiting = {"platform_id": state.platform, "timeout": WAIT_SECONDS}
        waiting |= _only(params.arguments or {}, "auth_handle")
        waited = await self._door.call_tool(WAIT, waiting, visit.caller, progress=progress)
        if not waited.is_error and waited.structured.get("success"):
            return waited if params.name == START else None
        if waited.is_error and waited.structured.get("error") != "timeout":
            return waited
        if state.number >= MAX_ROUNDS:
            return _failed("timeout", "The sign-in was not finished in time.", authorization_url=state.url)
        # The person has the link already: nothing is asked again, the client just comes back.
        return _again(msgspec.structs.replace(state, number=state.number + 1))

    def _offer(
        self, tool: str, arguments: Mapping[str, Any], visit: Visit, started: ToolResult, plain: ToolResult
    ) -> ToolResult | Json:
        way = way_of(visit, tool)
        link = started.structured
        url, platform = str(link["authorization_url"]), str(link["platform_id"])
        if way is Way.ERROR:
            asked = ElicitRequestURLParams(message=link_message(platform), url=url, elicitation_id=_digest(url))
            raise UrlElicitationRequiredError([asked])
        if way is Way.TASK:
            return self._tasks.asking(platform, url, arguments, visit)
        if way is Way.ROUNDS:
            return _again(Round(platform=platform, url=url)) | {"inputRequests": {KEY: link_request(platform, url)}}
        return plain


def _again(state: Round) -> Json:
    return {"resultType": "input_required", "requestState": msgspec.json.encode(state).decode()}


def _only(arguments: Mapping[str, Any], *names: str) -> Json:
    return {name: arguments[name] for name in names if name in arguments}


def _done(status: Mapping[str, Any], call_id: str) -> ToolResult:
    platform = status.get("platform_id", "")
    text = f"Signed in at {platform}. To sign in anew, call revoke_auth first."
    said = {"success": True, "platform_id": platform, "authenticated": True, "message": text}
    return ToolResult(structured=said, call_id=call_id)


def _with_link(refused: ToolResult, started: ToolResult) -> ToolResult:
    said = linked(refused.structured, started.structured)
    return ToolResult(structured=said, is_error=True, call_id=refused.call_id, sign_in=True)


def _failed(code: str, message: str, **more: str) -> ToolResult:
    return ToolResult(structured={"error": code, "message": message, **more}, is_error=True)


def _digest(url: str) -> str:
    """Names one request to a client; the link itself stays out of ids."""
    return hashlib.sha256(url.encode()).hexdigest()[:32]
