"""`POST /v1/tools/{name}`: the tools for applications that speak no MCP; same arguments, same answers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from wardmesh_common.errors import BadRequest, NotAllowed, NotFound, Problem, SignInRequired, WardmeshError
from wardmesh_common.vocabulary import Face
from wardmesh_gateway.answers import Answered
from wardmesh_gateway.asgi import Header, Request, Send, respond
from wardmesh_gateway.bodies import check_json, media_type_of
from wardmesh_gateway.caller import Visit
from wardmesh_gateway.entrance import Entrance
from wardmesh_gateway.problem import JSON, tool_error
from wardmesh_gateway.sign_in_link import linked
from wardmesh_gateway.tool_door import ToolArguments, ToolCalls
from wardmesh_gateway.tool_family import typed_problem
from wardmesh_gateway.tools import BY_NAME

PREFIX = "/v1/tools/"

# Decimals keep their digits: what a caller writes into a resource is what the platform stores.
_arguments = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)


class ToolFace:
    """One route per tool. The default view is the platform's full answer."""

    def __init__(self, calls: ToolCalls, arguments: ToolArguments, entrance: Entrance) -> None:
        self._calls = calls
        self._arguments = arguments
        self._entrance = entrance

    async def __call__(self, request: Request, send: Send) -> None:
        name = request.path[len(PREFIX) :].rstrip("/")

        started: dict[str, Any] = {}

        def render(problem: Problem) -> bytes:
            if name in BY_NAME and BY_NAME[name].typed_errors:
                return msgspec.json.encode(typed_problem(problem))
            said = tool_error(problem, name if name in BY_NAME else "tool")
            return msgspec.json.encode(linked(said, started) if started else said)

        async def route(request: Request, send: Send) -> None:
            await self._call(name, request, send, started)

        await self._entrance.run(route, request, send, render, JSON)

    async def _call(self, name: str, request: Request, send: Send, started: dict[str, Any]) -> None:
        """`started` is filled with the answer of `start_auth` when the refusal is that somebody has to sign in."""
        if name not in BY_NAME:
            raise UnknownTool("Unknown tool.")
        if request.method != "POST":
            raise NotAllowed("Tools are called with POST.")
        visit = await self._entrance.visit(request)
        check_json(media_type_of(request.header(b"content-type")))
        arguments = await _read(request)
        self._arguments.check(name, arguments)
        work = self._calls.call(
            name, arguments, visit, Face.REST, view="full", traceparent=request.header(b"traceparent")
        )
        try:
            answered = await request.unless_hung_up(work)
        except WardmeshError as error:
            if error.problem.code == SignInRequired.code:
                started.update(await self._link(arguments, visit))
            raise
        await respond(send, 200, [JSON, *answered_headers(answered)], answered.body)

    async def _link(self, arguments: dict[str, Any], visit: Visit) -> dict[str, Any]:
        """Nothing for those who can start no sign-in: anonymous callers, and platforms without one."""
        asked = {name: arguments[name] for name in ("platform_id", "auth_handle") if name in arguments}
        try:
            answered = await self._calls.call("start_auth", asked, visit, Face.REST, view="full")
        except WardmeshError:
            return {}
        return msgspec.json.decode(answered.body, type=dict[str, Any])


def answered_headers(answered: Answered) -> list[Header]:
    """Under which id the ledger knows the call, and which platform answered (FG-27: maybe a stand-in)."""
    headers: list[Header] = []
    if answered.call_id:
        headers.append((b"x-request-id", answered.call_id.encode()))
    if answered.platform:
        headers.append((b"x-wardmesh-platform", answered.platform.encode()))
    return headers


class UnknownTool(NotFound):
    code = "unknown_tool"


async def _read(request: Request) -> dict[str, Any]:
    try:
        return _arguments.decode(await request.body() or b"{}")
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        raise BadRequest("Invalid body: a JSON object with the tool's arguments is expected.") from None
