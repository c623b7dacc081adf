"""Requests and responses of the store and their raw ASGI clothing: limits, media types, errors as outcomes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any

from msgspec import Struct, structs

from wardmesh_fhir_store.faults import MEDIA_TYPE, Fault, Issue, outcome_body

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_LOG = logging.getLogger("wardmesh.fhir-store")


class Request(Struct, frozen=True):
    """`path` is below the FHIR base, `query` the raw query string, header names are lower case; a `stream` stands for a
    body that is not held."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = {}
    body: bytes = b""
    stream: AsyncGenerator[bytes] | None = None


class Response(Struct, kw_only=True):
    """`parts` follow the body, one by one as fast as the caller reads: content that is never held as a whole."""

    status: int = 200
    body: bytes = b""
    parts: AsyncGenerator[bytes] | None = None
    size: int | None = None  # of the parts, where it is known
    headers: list[tuple[str, str]] = []
    media_type: str = MEDIA_TYPE


TOO_LARGE = Fault(413, "too-costly", "The body is larger than the store accepts.")
Handler = Callable[[Request], Awaitable[Response]]


def fault_response(fault: Fault) -> Response:
    return Response(status=fault.status, body=fault.body, headers=list(fault.headers))


class AsgiApp:
    """The edge: nothing that happens inside leaves it as anything but a FHIR answer."""

    def __init__(self, handle: Handler, max_body_bytes: int, streamed: Callable[[Request], bool]) -> None:
        self._handle = handle
        self._limit = max_body_bytes
        self._streamed = streamed

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        response = await self._respond(scope, receive)
        headers = [(k.lower().encode(), v.encode("latin-1", "replace")) for k, v in response.headers]
        if response.body or response.parts:
            headers.append((b"content-type", response.media_type.encode()))
        size = len(response.body) if response.parts is None else response.size
        if response.status not in (204, 304) and size is not None:
            headers.append((b"content-length", str(size).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await _send_body(response, send, wanted=scope["method"] != "HEAD")

    async def _respond(self, scope: Message, receive: Receive) -> Response:
        try:
            request = Request(
                method=scope["method"],
                path=scope["path"].strip("/"),
                query=scope["query_string"].decode("latin-1"),
                headers={k.decode("latin-1"): v.decode("latin-1").strip() for k, v in scope["headers"]},
            )
            parts = self._parts(receive, request.headers.get("content-length", ""))
            if self._streamed(request):
                return await self._handle(structs.replace(request, stream=parts))
            return await self._handle(structs.replace(request, body=b"".join([part async for part in parts])))
        except Fault as fault:
            return fault_response(fault)
        except Exception:  # noqa: BLE001 - the edge: a bug becomes an answer at once
            _LOG.exception("a request failed unexpectedly")
            issue = Issue(code="exception", severity="fatal", diagnostics="The store failed; the error is logged.")
            return Response(status=500, body=outcome_body([issue]))

    async def _parts(self, receive: Receive, announced: str) -> AsyncGenerator[bytes]:
        size = int(announced) if announced.isascii() and announced.isdigit() and len(announced) < 20 else 0
        more = True
        if size > self._limit:
            raise TOO_LARGE
        size = 0
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Fault(400, "incomplete", "The body ended early.")
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > self._limit:
                raise TOO_LARGE
            more = message.get("more_body", False)
            yield part


async def _send_body(response: Response, send: Send, *, wanted: bool) -> None:
    """`send` waits while the caller does not read."""
    if response.parts is not None:
        async with contextlib.aclosing(response.parts) as parts:
            if wanted:
                async for part in parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": response.body if wanted else b""})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
