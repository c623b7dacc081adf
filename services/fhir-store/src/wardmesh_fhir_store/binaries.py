"""Binary as what it holds: raw content in and out (ST-62)."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.wire import Request, Response

FHIR_JSON_TYPES = frozenset({"application/fhir+json", "application/json+fhir", "application/json", "json", "text/json"})
SAFE_HEADERS = [("X-Content-Type-Options", "nosniff"), ("Content-Disposition", "attachment")]
CONTEXT = "x-security-context"


def wants_raw(request: Request) -> bool:
    """Raw unless FHIR JSON is asked for by name."""
    if "_format=" in request.query:
        return False
    accept = request.headers.get("accept", "")
    return not any(part.partition(";")[0].strip().lower() in FHIR_JSON_TYPES for part in accept.split(","))


def unwrapped(answer: Response) -> Response:
    """The content of a Binary that was read."""
    if answer.status != 200:
        return answer
    tree: dict[str, Any] = msgspec.json.decode(answer.body)
    try:
        content = base64.b64decode("".join(str(tree.get("data", "")).split()))
    except (binascii.Error, ValueError):
        raise Fault(422, "processing", "The Binary does not hold base64.") from None
    headers = [*answer.headers, *SAFE_HEADERS]
    context = tree.get("securityContext")
    if isinstance(context, dict) and isinstance(context.get("reference"), str):
        headers.append(("X-Security-Context", context["reference"]))
    return Response(status=200, body=content, headers=headers, media_type=str(tree.get("contentType")))


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
