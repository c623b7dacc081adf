"""Binary as what it holds: raw content in and out (ST-62)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from msgspec import Raw, Struct

from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.wire import Request, Response

FHIR_JSON_TYPES = frozenset({"application/fhir+json", "application/json+fhir", "application/json", "json", "text/json"})
SAFE_HEADERS = [("X-Content-Type-Options", "nosniff"), ("Content-Disposition", "attachment")]
PART_DIGITS = 256 * 1024  # of base64, four for three bytes
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*(={0,2})")
CONTEXT = "x-security-context"


def wants_raw(request: Request) -> bool:
    """Raw unless FHIR JSON is asked for by name."""
    if "_format=" in request.query:
        return False
    accept = request.headers.get("accept", "")
    return not any(part.partition(";")[0].strip().lower() in FHIR_JSON_TYPES for part in accept.split(","))


class Held(Struct, frozen=True, rename="camel"):
    content_type: str = "application/octet-stream"
    data: Raw = Raw(b'""')
    security_context: dict[str, Any] = {}


def content_headers(held: Held) -> list[tuple[str, str]]:
    """What stands beside the content of a Binary."""
    context = held.security_context.get("reference")
    return [*SAFE_HEADERS, *([("X-Security-Context", context)] if isinstance(context, str) else [])]


def is_raw_upload(request: Request) -> bool:
    """Raw content is taken in as it comes; anything else is small enough to be held, or refused."""
    kind, _, identity = request.path.rpartition("/")
    named = identity == "Binary" if request.method == "POST" else f"/{kind}".endswith("/Binary")
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return request.method in ("POST", "PUT") and named and media not in FHIR_JSON_TYPES | {""}


def unwrapped(answer: Response) -> Response:
    """The content of a Binary that was read, in parts: beside the stored resource no second copy is made."""
    if answer.status != 200:
        return answer
    held = msgspec.json.decode(answer.body, type=Held)
    headers = [*answer.headers, *content_headers(held)]
    text = memoryview(held.data)[1:-1]
    plain = _BASE64.fullmatch(text)
    if plain is None or len(text) % 4:  # blanks between the digits
        return Response(status=200, body=_decoded(held.data), headers=headers, media_type=held.content_type)
    size = len(text) // 4 * 3 - len(plain[1])
    return Response(status=200, parts=_parts(text), size=size, headers=headers, media_type=held.content_type)


async def _parts(text: memoryview) -> AsyncGenerator[bytes]:
    for start in range(0, len(text), PART_DIGITS):
        yield base64.b64decode(text[start : start + PART_DIGITS])


def _decoded(data: Raw) -> bytes:
    try:
        content = base64.b64decode("".join(msgspec.json.decode(data, type=str).split()))
    except (binascii.Error, ValueError):
        raise Fault(422, "processing", "The Binary does not hold base64.") from None
    return content


def wrapped(request: Request, identity: str) -> bytes:
    """Raw content as the resource that is stored."""
    resource: dict[str, Any] = {"resourceType": "Binary"}
    if identity:
        resource["id"] = identity
    resource["contentType"] = request.headers.get("content-type", "application/octet-stream")
    if CONTEXT in request.headers:
        resource["securityContext"] = {"reference": request.headers[CONTEXT]}
    if request.body:
        resource["data"] = base64.b64encode(request.body).decode()
    return msgspec.json.encode(resource)
