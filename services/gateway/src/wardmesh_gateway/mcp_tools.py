"""tools/list and tools/call of the MCP face: filtered by caller, validated, then through the one door (GW-4, GW-5)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolRequestParams, PaginatedRequestParams

from wardmesh_gateway.healthlake_jobs import DESCRIBES, JobWatch
from wardmesh_gateway.mcp_door import Door, McpTool, Progress, ToolResult
from wardmesh_gateway.mcp_narrowing import complained
from wardmesh_gateway.mcp_progress import reporting
from wardmesh_gateway.mcp_results import tool_result
from wardmesh_gateway.mcp_schemas import ToolShelf
from wardmesh_gateway.mcp_sign_in import SignInRounds
from wardmesh_gateway.mcp_visit import Visit, visitor
from wardmesh_gateway.sign_in_tasks import SignInTasks

PAGE = 100
Context = ServerRequestContext[Any, Any]


class ToolHandlers:
    """`on_list_tools` and `on_call_tool` over the door; the shelf follows the door's registry."""

    def __init__(self, door: Door, tasks: SignInTasks, jobs: JobWatch, *, page_size: int = PAGE) -> None:
        self._door = door
        self._page = page_size
        self._shelf = ToolShelf(door.tools())
        self._rounds = SignInRounds(door, tasks)
        self._jobs = jobs

    @property
    def shelf(self) -> ToolShelf:
        tools = self._door.tools()
        if tools is not self._shelf.source:
            self._shelf = ToolShelf(tools)
        return self._shelf

    def tool(self, name: str) -> McpTool | None:
        return self.shelf.tool(name)

    def schema(self, name: str) -> dict[str, Any] | None:
        """For the SDK: without it every modern call would list all tools (mcp.md §2.1)."""
        return self.shelf.mirrored(name)

    async def list(self, ctx: Context, params: PaginatedRequestParams) -> dict[str, Any]:
        visit = visitor(ctx)
        allowed = await self._door.allowed_tools(visit.caller)
        offered = [t for t in self.shelf.sorted if t.name in allowed and _in_profile(t, visit.profile)]
        offered = [tool for tool in offered if not visit.narrowing.refusal(tool)]
        page, cursor = paged(offered, params.cursor, self._page, lambda tool: tool.name)
        answer: dict[str, Any] = {"tools": [shown(tool) for tool in page]}
        return answer | ({"nextCursor": cursor} if cursor else {})

    async def call(self, ctx: Context, params: CallToolRequestParams) -> dict[str, Any]:
        visit = visitor(ctx)
        tool = self.offered(params.name, visit.profile)
        if tool is None:
            raise MCPError(INVALID_PARAMS, "Unknown tool")
        if not (ctx.meta and "progress_token" in ctx.meta):
            return await self._rounds_of(tool, params, visit, None)
        async with reporting(ctx) as progress:
            return await self._rounds_of(tool, params, visit, progress)

    async def _rounds_of(
        self, tool: McpTool, params: CallToolRequestParams, visit: Visit, progress: Progress | None
    ) -> dict[str, Any]:
        """One round of a call; most have only one. A sign-in at a platform makes them several (mcp.md §6)."""
        arguments = params.arguments or {}
        if visit.narrowing.refusal(tool):
            return _result(await self.answer(tool, arguments, visit))
        if params.request_state is not None:
            ended = await self._rounds.resume(params, visit, progress)
            if ended is not None:
                return _result(ended)
        sound = not self.shelf.check(tool.name).complaint(arguments)
        early = await self._rounds.before(tool.name, arguments, visit) if sound else None
        if early is not None:
            return _result(early)
        # Who watches a job hears of the job and not of the single look.
        result = await self.answer(tool, arguments, visit, None if tool.name in DESCRIBES else progress)
        followed = await self._jobs.after(tool, arguments, visit, result, progress)
        if followed is not result:
            return _result(followed)
        return _result(await self._rounds.after(tool.name, arguments, visit, result))

    def offered(self, name: str, profile: str) -> McpTool | None:
        tool = self.shelf.tool(name, profile)
        return tool if tool is not None and _in_profile(tool, profile) else None

    async def answer(
        self, tool: McpTool, arguments: dict[str, Any], visit: Visit, progress: Progress | None = None
    ) -> ToolResult:
        if refusal := visit.narrowing.refusal(tool):
            return complained(tool, "forbidden", refusal)
        if complaint := self.shelf.check(tool.name).complaint(arguments):
            return complained(tool, "validation_error", complaint)
        if progress is None:
            return await self._door.call_tool(tool.name, arguments, visit.caller)
        return await self._door.call_tool(tool.name, arguments, visit.caller, progress=progress)


def _in_profile(tool: McpTool, profile: str) -> bool:
    return profile in tool.profiles or not (profile or tool.shown_as)


def shown(tool: McpTool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "name": tool.shown_as or tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": tool.input_schema,
        "annotations": {
            "title": tool.title,
            "readOnlyHint": tool.read_only,
            "destructiveHint": tool.destructive,
            "idempotentHint": tool.idempotent,
            "openWorldHint": tool.open_world,
        },
    }
    return shown | ({"outputSchema": tool.output_schema} if tool.output_schema else {})


def _result(result: ToolResult | dict[str, Any]) -> dict[str, Any]:
    return result if isinstance(result, dict) else tool_result(result)


def paged(items: list[Any], cursor: str | None, size: int, key: Callable[[Any], str]) -> tuple[list[Any], str]:
    """One page of a sorted list. The cursor names the last item shown: lists may change between pages."""
    after = _opened(cursor) if cursor else ""
    rest = [item for item in items if key(item) > after] if after else items
    page = rest[:size]
    more = len(rest) > size
    return page, base64.urlsafe_b64encode(key(page[-1]).encode()).decode() if more else ""


def _opened(cursor: str) -> str:
    try:
        return base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise MCPError(INVALID_PARAMS, "Invalid cursor") from None
