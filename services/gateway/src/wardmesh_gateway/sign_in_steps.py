"""How far a sign-in is and how it is called off, for the MCP face (`mcp_door.SignInSteps`)."""

from __future__ import annotations

from typing import Any

import msgspec
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR

from wardmesh_common.contracts import Caller
from wardmesh_common.errors import WardmeshError
from wardmesh_common.vocabulary import Face
from wardmesh_gateway.caller import Callers, Visit, with_handle
from wardmesh_gateway.mcp_door import Seen, ToolResult
from wardmesh_gateway.problem import tool_error
from wardmesh_gateway.sign_in import SignIn

WAIT, CANCEL = "wait_for_auth", "cancel_auth"
_CANCELLED = "sign_in_cancelled"
# Nobody can tell just now; the client asks again.
_AWAY = frozenset({"unavailable", "busy", "audit_unavailable", "timeout"})


class McpSignInSteps:
    """The same procedures that the tools use, asked without waiting."""

    def __init__(self, sign_in: SignIn, callers: Callers) -> None:
        self._sign_in, self._callers = sign_in, callers

    async def look(self, platform: str, handle: str, caller: Caller) -> Seen:
        try:
            visit = await self._visit(handle, caller)
            arguments = {"platform_id": self._sign_in.platform(platform, Face.MCP).id, "timeout": 0}
            answered = await self._sign_in.run(WAIT, arguments, visit, Face.MCP)
        except WardmeshError as error:
            if error.problem.code in _AWAY:
                return Seen()
            failed = ToolResult(structured=tool_error(error.problem, WAIT), is_error=True, call_id=error.call_id)
            return Seen(result=failed, cancelled=error.problem.code == _CANCELLED)
        said = msgspec.json.decode(answered.body, type=dict[str, Any])
        done = ToolResult(structured=said, call_id=answered.call_id, platform=answered.platform)
        return Seen(result=done if said.get("success") else None)

    async def cancel(self, platform: str, handle: str, caller: Caller) -> None:
        try:
            visit = await self._visit(handle, caller)
            arguments = {"platform_id": self._sign_in.platform(platform, Face.MCP).id}
            await self._sign_in.run(CANCEL, arguments, visit, Face.MCP)
        except WardmeshError as error:
            raise MCPError(INTERNAL_ERROR, error.problem.detail) from None

    async def _visit(self, handle: str, caller: Caller) -> Visit:
        visit = await self._callers.visit_of(caller)
        return with_handle(visit, handle) if handle else visit
