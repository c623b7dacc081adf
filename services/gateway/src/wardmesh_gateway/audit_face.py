"""The ledger over HTTP: /log, /v1/events and its neighbours, /audit-latest/ (audit.md section 13). Raw ASGI."""

from __future__ import annotations

import msgspec

from wardmesh_common.errors import Problem
from wardmesh_gateway.asgi import Header, Request, Send, respond, respond_streamed
from wardmesh_gateway.audit_door import Asked, AuditDoor
from wardmesh_gateway.audit_routes import TAIL, asked_of, events_of
from wardmesh_gateway.audit_tail import Tails, form_of, resumed
from wardmesh_gateway.calls import Delivers
from wardmesh_gateway.entrance import Entrance

PREFIXES = (
    "/log/",
    "/v1/events",
    "/v1/patients/",
    "/v1/actors/",
    "/v1/disclosures",
    "/v1/status",
    "/v1/gaps",
    "/v1/holds",
    "/v1/reviews",
    "/audit-latest/",
)
PROBLEM_JSON: Header = (b"content-type", b"application/problem+json")
_NO_STORE: Header = (b"cache-control", b"no-store")
_FOR_EVER: Header = (b"cache-control", b"private, max-age=31536000, immutable")
_FILES = {"text/csv": "csv", "application/pdf": "pdf"}


def problem_document(problem: Problem) -> bytes:
    """RFC 9457; the type is relative to where problems are described."""
    return msgspec.json.encode(
        {
            "type": f"/problems/{problem.code}",
            "title": problem.code.replace("_", " "),
            "status": problem.status,
            "detail": problem.detail,
        }
    )


class AuditFace:
    def __init__(self, door: AuditDoor, entrance: Entrance, tails: Tails) -> None:
        self._door = door
        self._entrance = entrance
        self._tails = tails

    async def __call__(self, request: Request, send: Send) -> None:
        await self._entrance.run(self._route, request, send, problem_document, PROBLEM_JSON)

    async def _route(self, request: Request, send: Send) -> None:
        if request.path == "/v1/events/tail" and request.method == "GET":
            asked = resumed(events_of(request, self._door, "follow_events", TAIL), request)
            visit = await self._entrance.visit(request)
            await self._tails.serve((asked,), request, send, visit, form_of(request))
            return
        asked = await asked_of(request, self._door)
        visit = await self._entrance.visit(request)
        delivery = await request.unless_hung_up(self._door.ask(asked, request, visit))
        await _answer(request, send, asked, delivery)


async def _answer(request: Request, send: Send, asked: Asked, delivery: Delivers) -> None:
    reply = delivery.reply
    headers = [
        (b"content-type", reply.media_type.encode("latin-1")),
        (b"x-request-id", reply.call_id.encode()),
        _FOR_EVER if asked.tool in ("read_tile", "read_entries") else _NO_STORE,
    ]
    encoding = reply.headers.get("content-encoding", "")
    if encoding:
        headers.append((b"content-encoding", encoding.encode("latin-1")))
    kind = _FILES.get(reply.media_type.partition(";")[0])
    if kind:
        name = asked.tool.replace("_", "-").removeprefix("open-")
        headers.append((b"content-disposition", f'attachment; filename="{name}.{kind}"'.encode()))
    head = request.method == "HEAD"
    if reply.chunked_bytes and not head:
        parts = respond_streamed(send, reply.status, headers, reply.chunked_bytes, delivery.stream())
        await request.unless_hung_up(parts, patience=0.0)
    else:
        await respond(send, reply.status, headers, await delivery.body(), head=head)
