"""The door as the MCP face asks for it (`mcp_door.Door`): the same tools, refusals as results."""

from __future__ import annotations

import logging
from typing import Any, Protocol

import msgspec

from wardmesh_common.contracts import ASK_TOOLS, PROCEDURE_KINDS, Caller
from wardmesh_common.errors import Internal, Problem, SignInRequired, WardmeshError
from wardmesh_common.questions import ToolsAnswer, ToolsQuestion
from wardmesh_common.vocabulary import WRITES, Face, Interaction, Principal
from wardmesh_gateway.caller import Callers, Visit, principal_of
from wardmesh_gateway.calls import SCOPE_READ, SCOPE_WRITE
from wardmesh_gateway.mcp_door import McpTool, Progress, ToolResult
from wardmesh_gateway.problem import tool_error
from wardmesh_gateway.tool_door import ToolCalls
from wardmesh_gateway.tool_family import Worded, typed_problem
from wardmesh_gateway.tool_spec import ToolSpec
from wardmesh_gateway.tools import BY_NAME, TOOLS

_log = logging.getLogger("wardmesh.gateway")

# Hints follow from the interaction; they are MCP's words, so they live here and not in the registry.
_destructive = frozenset({Interaction.UPDATE, Interaction.PATCH, Interaction.DELETE})
_once = frozenset({Interaction.CREATE, Interaction.PATCH})


class _Object(msgspec.Struct):
    """Any JSON object: its members are walked over, not built."""


_objects = msgspec.json.Decoder(_Object)


class AsksPolicy(Protocol):
    async def ask(
        self, subject: str, question: msgspec.Struct, answer_type: type[Any], *, principal: Principal | None = None
    ) -> Any: ...


class McpDoor:
    """Adapts the tool calls to the MCP face; the default view is the one for models."""

    def __init__(self, calls: ToolCalls, callers: Callers, policy: AsksPolicy) -> None:
        self._calls = calls
        self._callers = callers
        self._policy = policy
        self._tools = tuple(_shown(tool) for tool in TOOLS)
        self._procedures = {tool.name: tool.performer for tool in TOOLS if tool.performer in PROCEDURE_KINDS}
        self._operations = {tool.name: tool.operation for tool in TOOLS if tool.operation}
        self._asked = {
            tool.name: tool.interaction
            for tool in TOOLS
            if tool.interaction is not None and tool.name not in self._procedures | self._operations
        }
        self._own = frozenset(tool.name for tool in TOOLS if tool.interaction is None)
        self._every = frozenset(tool.name for tool in TOOLS)

    def tools(self) -> tuple[McpTool, ...]:
        return self._tools

    async def allowed_tools(self, caller: Caller) -> frozenset[str]:
        """By policy. When policy cannot be asked only what needs no decision is shown.

        Who comes without a token (SM-4) sees every tool: what a session may is known to auth, and decided at the call.
        """
        if not caller.bearer:
            return self._every
        try:
            visit = await self._callers.visit_of(caller)
            principal = _principal(visit)
            question = ToolsQuestion(
                principal=principal, tools=self._asked, procedures=self._procedures, operations=self._operations
            )
            answer = await self._policy.ask(ASK_TOOLS, question, ToolsAnswer, principal=principal)
        except WardmeshError as error:
            _log.warning("tool list without policy: %s", error.problem.code)
            return self._own
        return self._own | frozenset(answer.allowed)

    async def call_tool(
        self, name: str, arguments: dict[str, Any], caller: Caller, *, progress: Progress | None = None
    ) -> ToolResult:
        if progress is not None:
            await progress(0.0, 1.0, "Asking the platform")
        try:
            visit = await self._callers.visit_of(caller)
            answered = await self._calls.call(name, arguments, visit, Face.MCP, view="model")
            _objects.decode(answered.body)
            result = ToolResult(
                text=answered.body.decode(),
                call_id=answered.call_id,
                platform=answered.platform,
                instead_of=answered.instead_of,
            )
        except WardmeshError as error:
            result = _failed(error.problem, name, error.call_id, worded=isinstance(error, Worded))
        except msgspec.DecodeError:
            result = _failed(Internal("The answer is not JSON.").problem, name)
        except Exception:  # noqa: BLE001
            # The edge of this face: a bug becomes a tool error, its place a line in the log.
            _log.exception("unexpected failure in a tool")
            result = _failed(Internal("Something went wrong inside the mesh.").problem, name)
        if progress is not None:
            await progress(1.0, 1.0, None)
        return result


def _failed(problem: Problem, name: str, call_id: str = "", *, worded: bool = False) -> ToolResult:
    """`worded`: the text is laid down by the tool's list, so it stands there as it is (C-7)."""
    if BY_NAME[name].typed_errors:
        return ToolResult(structured=typed_problem(problem), is_error=True, call_id=call_id)
    return ToolResult(
        structured=tool_error(problem, name) | ({"status": problem.status} if worded else {}),
        text=problem.detail if worded else "",
        is_error=True,
        call_id=call_id,
        sign_in=problem.code == SignInRequired.code and not worded,
    )


def _principal(visit: Visit) -> Principal:
    if visit.token is None:
        return Principal(id="anonymous", agent=visit.caller.agent)
    return principal_of(visit.token, visit.caller.agent)


def _shown(tool: ToolSpec) -> McpTool:
    interaction = tool.interaction
    writes = interaction in WRITES
    return McpTool(
        name=tool.name,
        title=tool.title,
        description=tool.summary,
        input_schema=tool.input,
        output_schema=tool.output,
        read_only=not (writes or tool.changes),
        destructive=interaction in _destructive or tool.destructive,
        idempotent=interaction not in _once and not tool.changes,
        open_world=interaction is not None,
        scopes=_scopes(tool, writes=writes),
        quick=tool.quick,
        profiles=tool.profiles,
        shown_as=tool.shown_as,
        typed_errors=tool.typed_errors,
    )


def _scopes(tool: ToolSpec, *, writes: bool) -> tuple[str, ...]:
    if tool.scope:
        return (tool.scope,)
    return (SCOPE_READ, SCOPE_WRITE) if writes else (SCOPE_READ,)
