"""The outermost ASGI app: which face a path belongs to. No framework on the hot paths."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from wardmesh_common.errors import NotFound, Problem, WardmeshError
from wardmesh_gateway.asgi import App, Header, Receive, Request, Scope, Send
from wardmesh_gateway.entrance import Entrance, Render
from wardmesh_gateway.fhir import PREFIX as FHIR
from wardmesh_gateway.headers import Dressing
from wardmesh_gateway.limits import check_declared
from wardmesh_gateway.problem import FHIR_JSON, JSON, operation_outcome, rest, tool_error
from wardmesh_gateway.rest import PREFIX as REST
from wardmesh_gateway.tool_rest import PREFIX as TOOLS

# What is answered without a Call and so without a record (AU-110): our own documents, nothing from any platform.
# Everything else goes through the door; a test walks all routes and compares.
UNRECORDED_ROUTES = (
    "/health",
    "/ready",
    "/api/platforms",
    "/api/platforms/{platform_id}",
    "/api/organisations",
    "/openapi.json",
    "/redoc",
    "/docs",
    "/docs/",
    "/docs/{name}",
    "/docs/asyncapi.json",
    "/v1/tools/list_platforms",
    "/v1/tools/find_platform",
    # Worked out from the arguments alone.
    "/v1/tools/validate_fhir_resource",
    "/v1/tools/create_patient_template",
    "/v1/tools/create_observation_template",
    "/console",
    "/console/",
    "/console/static/console.css",
    "/console/static/console.js",
    "/console/static/icon.svg",
)

# Beside them `/` for a browser without a session, and our public keys out of the memory of a minute.

RawFace = Callable[[Request, Send], Awaitable[None]]


class OwnsRawPaths(Protocol):
    """The faces of the sign-in, of the ledger and of coverage: they name their own paths."""

    def owns(self, path: str) -> bool: ...

    async def __call__(self, request: Request, send: Send) -> None: ...


class OwnsPaths(Protocol):
    """The MCP face."""

    def owns(self, path: str) -> bool: ...

    def knows_browsers(self, path: str) -> bool: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


def _tool_problem(problem: Problem) -> bytes:
    return msgspec.json.encode(tool_error(problem, "tool"))


class Router:
    """Faces by prefix; the MCP face names its own paths; the rest is the catalogue's."""

    def __init__(
        self,
        *,
        rest_face: RawFace,
        fhir_face: RawFace,
        tool_face: RawFace,
        sign_in: OwnsRawPaths,
        ledger: OwnsRawPaths,
        coverage: OwnsRawPaths,
        catalogue: App,
        mcp: OwnsPaths | None,
        entrance: Entrance,
        dressing: Dressing,
        max_body_bytes: int,
    ) -> None:
        self._faces: tuple[tuple[str, RawFace, Render, Header], ...] = (
            (REST, rest_face, rest, JSON),
            (FHIR, fhir_face, operation_outcome, FHIR_JSON),
            (TOOLS, tool_face, _tool_problem, JSON),
        )
        self._owners = (sign_in, ledger, coverage)
        self._catalogue = catalogue
        self._mcp = mcp
        self._entrance = entrance
        self._dressing = dressing
        self._limit = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        path: str = scope["path"]
        if self._mcp is not None and self._mcp.owns(path):
            await self._to_mcp(self._mcp, scope, receive, send)
            return
        if scope["method"] == "OPTIONS" and await self._dressing.preflight(scope, send):
            return
        request = Request(scope, receive, self._limit)
        send = self._dressing.dress(send, request.header(b"origin").encode("latin-1"))
        for prefix, face, render, media_type in self._faces:
            if path.startswith(prefix):
                await self._pass(request, send, face, render, media_type)
                return
        face: RawFace = next((owner for owner in self._owners if owner.owns(path)), self._document)
        await self._pass(request, send, face, rest, JSON)

    async def _to_mcp(self, mcp: OwnsPaths, scope: Scope, receive: Receive, send: Send) -> None:
        """It speaks CORS itself, but for the path where cookies count: credentials are the other faces' way."""
        if not mcp.knows_browsers(scope["path"]):
            await mcp(scope, receive, self._dressing.dress(send, b"", cors=False))
        elif scope["method"] != "OPTIONS" or not await self._dressing.preflight(scope, send):
            origin = next((value for name, value in scope["headers"] if name == b"origin"), b"")
            await mcp(scope, receive, self._dressing.dress(send, origin))

    async def _pass(self, request: Request, send: Send, face: RawFace, render: Render, media_type: Header) -> None:
        try:
            check_declared(request.headers, self._limit)
        except WardmeshError as error:
            await self._entrance.refuse(error.problem, request, send, render, media_type)
            return
        await face(request, send)

    async def _document(self, request: Request, send: Send) -> None:
        if request.path in ("/fhir", "/v1/tools"):
            problem = NotFound("There is nothing at this address.").problem
            await self._entrance.refuse(problem, request, send, rest, JSON)
            return
        await self._catalogue(request.scope, request.receive, send)
