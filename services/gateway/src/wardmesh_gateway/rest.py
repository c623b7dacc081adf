"""The REST face over FHIR: /api/fhir/{platform}/... as FG-4 to FG-9 say it. Raw ASGI: applications' hot path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

import msgspec

from wardmesh_common.asking import Refused
from wardmesh_common.errors import NotAllowed, NotFound
from wardmesh_common.vocabulary import Face, Interaction
from wardmesh_gateway import capability
from wardmesh_gateway.asgi import Request, Send, respond, respond_streamed
from wardmesh_gateway.bodies import FHIR_JSON, check_json, check_match, fill_id, media_type_of, peek
from wardmesh_gateway.calls import Delivers, Door, Wanted
from wardmesh_gateway.entrance import Entrance, request_headers, response_headers
from wardmesh_gateway.formats import checked_query
from wardmesh_gateway.problem import JSON, of_reply, rest
from wardmesh_gateway.rules import check_id, check_operation, check_platform, check_type

PREFIX = "/api/fhir/"

Shape = Callable[[bytes], bytes]


class RestFace:
    """One method per path; validation of what the path says comes before everything else (FG-8)."""

    def __init__(self, door: Door, entrance: Entrance) -> None:
        self._door = door
        self._entrance = entrance

    async def __call__(self, request: Request, send: Send) -> None:
        await self._entrance.run(self._route, request, send, rest, JSON)

    async def _route(self, request: Request, send: Send) -> None:
        parts = request.path[len(PREFIX) :].rstrip("/").split("/")
        check_platform(parts[0])
        if len(parts) == 2:
            if parts[1] == "metadata":
                return await self._metadata(request, send, parts[0])
            return await self._type(request, send, parts[0], check_type(parts[1]))
        if len(parts) == 3:
            return await self._instance(request, send, parts[0], check_type(parts[1]), check_id(parts[2]))
        if len(parts) == 4:
            check_type(parts[1])
            check_id(parts[2])
            return await self._operation(request, send, parts[0], parts[1], parts[2], check_operation(parts[3]))
        raise NotFound("There is nothing at this address.")

    # --- routes ---

    async def _metadata(self, request: Request, send: Send, platform: str) -> None:
        _only(request, "GET", "HEAD")
        kinds = parse_qs(checked_query(request)).get("resource_type", [])
        kind = check_type(kinds[0]) if kinds else ""
        wanted = Wanted(tool="get_capabilities", interaction=Interaction.CAPABILITIES)
        shape: Shape = (lambda body: capability.details(body, kind)) if kind else capability.summary
        await self._perform(request, send, platform, lambda: _ready(wanted), shape)

    async def _type(self, request: Request, send: Send, platform: str, kind: str) -> None:
        _only(request, "GET", "HEAD", "POST")
        if request.method == "POST":
            await self._perform(request, send, platform, lambda: self._written(request, kind, ""), writes=True)
            return
        wanted = Wanted(tool="search", interaction=Interaction.SEARCH, type=kind, query=checked_query(request))
        await self._perform(request, send, platform, lambda: _ready(wanted))

    async def _instance(self, request: Request, send: Send, platform: str, kind: str, resource_id: str) -> None:
        _only(request, "GET", "HEAD", "PUT", "DELETE")
        if request.method == "PUT":
            await self._perform(request, send, platform, lambda: self._written(request, kind, resource_id), writes=True)
            return
        if request.method == "DELETE":
            wanted = Wanted(
                tool="delete",
                interaction=Interaction.DELETE,
                type=kind,
                id=resource_id,
                headers=request_headers(request),
            )
            done = _deleted(kind, resource_id)
            await self._perform(request, send, platform, lambda: _ready(wanted), lambda _: done, writes=True)
            return
        wanted = Wanted(
            tool="read",
            interaction=Interaction.READ,
            type=kind,
            id=resource_id,
            query=checked_query(request),
            headers=request_headers(request),
        )
        await self._perform(request, send, platform, lambda: _ready(wanted))

    async def _operation(
        self, request: Request, send: Send, platform: str, kind: str, resource_id: str, operation: str
    ) -> None:
        _only(request, "GET", "HEAD")
        wanted = Wanted(
            tool="execute_operation",
            interaction=Interaction.OPERATION,
            operation=operation,
            type=kind,
            id=resource_id,
            query=checked_query(request),
        )
        await self._perform(request, send, platform, lambda: _ready(wanted), writes=wanted.writes)

    # --- the way through the door and back ---

    async def _perform(
        self,
        request: Request,
        send: Send,
        platform: str,
        wanted: Callable[[], Awaitable[Wanted]],
        shape: Shape | None = None,
        *,
        writes: bool = False,
    ) -> None:
        facts = self._door.platform(platform, Face.REST)
        visit = await self._entrance.visit(request)
        self._door.admit(visit, facts, writes=writes)
        ready = await wanted()
        work = self._door.submit(ready, facts, visit, Face.REST, traceparent=request.header(b"traceparent"))
        delivery = await request.unless_hung_up(work)
        await _answer(request, send, delivery, shape, facts.id)

    async def _written(self, request: Request, kind: str, resource_id: str) -> Wanted:
        """A create, or with an id an update, of exactly one well-formed resource."""
        check_json(media_type_of(request.header(b"content-type")))
        body = await request.body()
        given = peek(body)
        check_match(given.resourceType, given.id, kind, resource_id)
        if resource_id and given.id is None:
            body = fill_id(body, resource_id)
        headers = request_headers(request)
        headers.setdefault("prefer", "return=representation")
        return Wanted(
            tool="update" if resource_id else "create",
            interaction=Interaction.UPDATE if resource_id else Interaction.CREATE,
            type=kind,
            id=resource_id,
            body=body,
            media_type=FHIR_JSON,
            headers=headers,
        )


async def _answer(request: Request, send: Send, delivery: Delivers, shape: Shape | None, platform: str) -> None:
    reply = delivery.reply
    headers = [JSON, *response_headers(reply, platform)]
    if reply.problem is None and reply.status == 304:
        await respond(send, 304, headers[1:], b"")
        return
    if reply.problem is not None or reply.status >= 400:
        body = await delivery.body()
        raise Refused(of_reply(reply, body) or reply.problem, reply.call_id)  # type: ignore[arg-type]
    head = request.method == "HEAD"
    if shape is not None:
        status = 200 if reply.status == 204 else reply.status
        await respond(send, status, headers, shape(await delivery.body()), head=head)
    elif reply.chunked_bytes and not head:
        parts = respond_streamed(send, reply.status, headers, reply.chunked_bytes, delivery.stream())
        await request.unless_hung_up(parts, patience=0.0)
    else:
        await respond(send, reply.status, headers, await delivery.body(), head=head)


async def _ready(wanted: Wanted) -> Wanted:
    return wanted


def _only(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise NotAllowed("This method is not offered here.")


def _deleted(kind: str, resource_id: str) -> bytes:
    text = f"Successfully deleted {kind}/{resource_id}"
    issue = {"severity": "information", "code": "deleted", "diagnostics": text}
    return msgspec.json.encode({"resourceType": "OperationOutcome", "issue": [issue]})
