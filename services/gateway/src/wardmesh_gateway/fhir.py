"""The FHIR face: /fhir/{platform}/... for ordinary FHIR clients. Raw ASGI; answers and errors are FHIR (PX-4, PX-8)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from urllib.parse import parse_qsl

from wardmesh_common.asking import Refused
from wardmesh_common.contracts import Entry
from wardmesh_common.errors import BadRequest, NotFound, TooLarge
from wardmesh_common.vocabulary import EXPORT_FILE, READS, Face, Interaction
from wardmesh_gateway.asgi import Request, Send, respond, respond_streamed
from wardmesh_gateway.bodies import (
    FHIR_JSON,
    FORM,
    JSON_PATCH,
    JSON_TYPES,
    PATCH_TYPES,
    check_json,
    check_match,
    check_patch,
    media_type_of,
    parse_strictly,
    peek,
)
from wardmesh_gateway.calls import Delivers, Door, Wanted
from wardmesh_gateway.entrance import Entrance, as_json, request_headers, response_headers
from wardmesh_gateway.fhir_bundle import bundle_entries, bundle_kind
from wardmesh_gateway.fhir_paths import Target, target_of
from wardmesh_gateway.formats import checked_query
from wardmesh_gateway.problem import FHIR_JSON as FHIR_JSON_HEADER
from wardmesh_gateway.problem import UnsupportedMedia, of_reply, operation_outcome
from wardmesh_gateway.rules import check_platform

PREFIX = "/fhir/"
# What people store in a Binary may be a page: opened in a browser it is not one of ours.
CONTENT_POLICY = (b"content-security-policy", b"default-src 'none'; sandbox")
MAX_FORM_BYTES = 256 * 1024


class FhirFace:
    """Path and method say which interaction it is; the rest is the door's."""

    def __init__(self, door: Door, entrance: Entrance) -> None:
        self._door = door
        self._entrance = entrance

    async def __call__(self, request: Request, send: Send) -> None:
        await self._entrance.run(self._route, request, send, operation_outcome, FHIR_JSON_HEADER)

    async def _route(self, request: Request, send: Send) -> None:
        platform, _, rest = request.path[len(PREFIX) :].partition("/")
        check_platform(platform)
        parts = [part for part in rest.split("/") if part] if rest else []
        if not platform or "//" in rest:
            raise NotFound("There is nothing at this address.")
        target = target_of(request.method, parts, has_query=bool(request.query))
        raw = _is_raw(target)
        query = request.query if raw else checked_query(request)
        facts = self._door.platform(platform, Face.FHIR)
        visit = await self._entrance.visit(request)
        self._door.admit(visit, facts, writes=target.writes)
        wanted = await self._wanted(request, target, query)
        work = self._door.submit(wanted, facts, visit, Face.FHIR, traceparent=request.header(b"traceparent"))
        await _answer(request, send, await request.unless_hung_up(work), facts.id)

    async def _wanted(self, request: Request, target: Target, query: str) -> Wanted:
        body, media_type = b"", ""
        headers = request_headers(request)
        if _is_raw(target):
            headers["accept"] = request.joined(b"accept")
            if takes_gzip(request.joined(b"accept-encoding")):
                headers["accept-encoding"] = "gzip"
        entries: tuple[Entry, ...] = ()
        interaction, tool = target.interaction, target.tool
        if target.form:
            # Into the query, not the body: policy reads parameters there, whichever way they came.
            query = joined(query, await _form(request))
        elif target.bundle:
            check_json(media_type_of(request.header(b"content-type")))
            body, media_type = await request.body(), FHIR_JSON
            bundle = await parse_strictly(body)
            interaction = bundle_kind(bundle)
            tool, entries = str(interaction), bundle_entries(bundle)
        elif interaction in (Interaction.CREATE, Interaction.UPDATE):
            body, media_type = await _resource(request, target)
        elif interaction is Interaction.PATCH:
            body, media_type = await _patch(request)
        elif interaction is Interaction.OPERATION and request.method == "POST":
            body, media_type = await _parameters(request)
        return Wanted(
            tool=tool,
            interaction=interaction,
            type=target.type,
            id=target.id,
            version=target.version,
            operation=target.operation,
            query=query,
            body=body,
            media_type=media_type,
            headers=headers,
            entries=entries,
        )


def _is_raw(target: Target) -> bool:
    """Content that may be asked for as what it is."""
    return target.operation == EXPORT_FILE or (target.type == "Binary" and target.interaction in READS)


async def nothing() -> AsyncGenerator[bytes, None]:
    for part in ():
        yield part


def takes_gzip(accept_encoding: str) -> bool:
    """Named, and not with `q=0`."""
    for item in accept_encoding.lower().split(","):
        coding, _, weight = item.replace(" ", "").partition(";")
        if coding == "gzip":
            return not weight.startswith("q=0") or weight.strip("q=0.") != ""
    return False


def joined(query: str, form: str) -> str:
    """Parameters of the URL, then those of the form: both count (R4 search.html)."""
    return f"{query}&{form}" if query and form else query or form


async def _form(request: Request) -> str:
    if media_type_of(request.header(b"content-type")) not in (FORM, ""):
        raise UnsupportedMedia("A search by POST has its parameters as application/x-www-form-urlencoded.")
    body = await request.body()
    if len(body) > MAX_FORM_BYTES:
        raise TooLarge("The search parameters are too long.")
    try:
        text = body.decode("ascii")
        parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=1000)
    except (UnicodeDecodeError, ValueError):
        raise BadRequest("Invalid form: it is not application/x-www-form-urlencoded.") from None
    # Only the wish for a format is ours to handle; it is JSON in any case.
    return "&".join(pair for pair in text.split("&") if not pair.startswith("_format="))


async def _resource(request: Request, target: Target) -> tuple[bytes, str]:
    """The resource to store, and its media type: a Binary may come as the bytes that it is."""
    media_type = media_type_of(request.header(b"content-type"))
    if target.type == "Binary" and media_type not in JSON_TYPES:
        return await request.body(), media_type
    check_json(media_type)
    body = await request.body()
    given = peek(body)
    check_match(given.resourceType, given.id, target.type, target.id)
    if target.interaction is Interaction.UPDATE and target.id and given.id is None:
        raise BadRequest("An update needs the id in the resource as well as in the URL.")
    return body, FHIR_JSON


async def _patch(request: Request) -> tuple[bytes, str]:
    """JSON Patch is a list, FHIRPath Patch a Parameters resource; the media type says which (X-41)."""
    media_type = media_type_of(request.header(b"content-type"))
    if media_type not in PATCH_TYPES:
        raise UnsupportedMedia("A patch is application/json-patch+json or application/fhir+json.")
    body = await request.body()
    if media_type == JSON_PATCH:
        await check_patch(body)
        return body, JSON_PATCH
    parameters = await parse_strictly(body)
    if parameters.get("resourceType") != "Parameters":
        raise BadRequest("A FHIRPath patch is a Parameters resource.")
    return body, FHIR_JSON


async def _parameters(request: Request) -> tuple[bytes, str]:
    body = await request.body()
    if not body:
        return b"", ""
    check_json(media_type_of(request.header(b"content-type")))
    resource = await parse_strictly(body)
    if not isinstance(resource.get("resourceType"), str):
        raise BadRequest("The body of an operation is a resource.")
    return body, FHIR_JSON


async def _answer(request: Request, send: Send, delivery: Delivers, platform: str) -> None:
    """The platform's answer as it is, or an OperationOutcome where it gave none."""
    reply = delivery.reply
    headers = [as_json(reply.media_type or FHIR_JSON), *response_headers(reply, platform)]
    if media_type_of(reply.media_type) not in JSON_TYPES:
        headers.append(CONTENT_POLICY)
    head = request.method == "HEAD"
    if head and reply.chunked_bytes:
        delivery.decline()
        await respond_streamed(send, reply.status, headers, reply.chunked_bytes, nothing())
        return
    if reply.chunked_bytes:
        parts = respond_streamed(send, reply.status, headers, reply.chunked_bytes, delivery.stream())
        await request.unless_hung_up(parts, patience=0.0)
        return
    body = await delivery.body()
    if reply.status in (204, 304):
        await respond(send, reply.status, headers[1:], b"")
        return
    if not body:
        problem = of_reply(reply, body)
        if problem is not None:
            raise Refused(problem, reply.call_id)
    await respond(send, reply.status, headers, body, head=head)
