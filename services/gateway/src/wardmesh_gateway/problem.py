"""One Problem, three renderings: `{"detail"}` for REST, OperationOutcome for FHIR, `{"error", "message"}` for tools."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_common.contracts import Reply
from wardmesh_common.errors import PlatformUnconfigured, PlatformUnknown, Problem, WardmeshError
from wardmesh_common.vocabulary import Face
from wardmesh_gateway.asgi import Header

JSON: Header = (b"content-type", b"application/json")
FHIR_JSON: Header = (b"content-type", b"application/fhir+json")

NOT_FOUND = "Resource not found"


class NotAcceptable(WardmeshError):
    """The caller wants a format that we do not speak."""

    code, status, issue = "not_acceptable", 406, "not-supported"


class UnsupportedMedia(WardmeshError):
    code, status, issue = "unsupported_media_type", 415, "not-supported"


def unknown_platform(platform: str, face: Face) -> PlatformUnknown:
    if face is Face.MCP:
        return PlatformUnknown(f"Platform '{platform}' not found")
    return PlatformUnknown(
        f"Platform '{platform}' is not registered. Available platforms can be found at /api/platforms"
    )


def unconfigured_platform(platform: str, face: Face) -> PlatformUnconfigured:
    if face is Face.MCP:
        return PlatformUnconfigured(f"Platform '{platform}' has no FHIR endpoint")
    return PlatformUnconfigured(
        f"Platform '{platform}' does not have a FHIR endpoint configured. "
        "An operator can set one in the platform's descriptor."
    )


# --- What a reply that is not a success says ---

_codes = {
    400: ("operation_outcome", "invalid"),
    401: ("sign_in_required", "login"),
    403: ("forbidden", "forbidden"),
    404: ("not_found", "not-found"),
    405: ("method_not_allowed", "not-supported"),
    409: ("conflict", "conflict"),
    410: ("deleted", "deleted"),
    412: ("precondition_failed", "conflict"),
    422: ("operation_outcome", "processing"),
    429: ("throttled", "throttled"),
    504: ("timeout", "timeout"),
}


class _Text(Struct, frozen=True):
    text: str = ""


class _Issue(Struct):
    diagnostics: str = ""
    details: _Text = _Text()


class _Issues(Struct):
    resourceType: str = ""  # noqa: N815 (FHIR's name)
    issue: list[_Issue] = []


_issues = msgspec.json.Decoder(_Issues)


def outcome_text(body: bytes) -> str | None:
    """What a platform's OperationOutcome says, already scrubbed by fhir-proxy; None when `body` is not one."""
    if not body:
        return None
    try:
        outcome = _issues.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        return None
    if outcome.resourceType != "OperationOutcome":
        return None
    texts = [issue.diagnostics or issue.details.text for issue in outcome.issue]
    return "; ".join(text for text in texts if text) or "The platform refused the request."


def of_reply(reply: Reply, body: bytes) -> Problem | None:
    """The problem of a reply as REST and tools tell it, or None when it is a success."""
    if reply.problem is None and reply.status < 400:
        return None
    said = outcome_text(body)
    problem = reply.problem
    if problem is None:
        code, issue = _codes.get(reply.status, ("upstream_unavailable", "transient"))
        problem = Problem(
            code=code, status=reply.status, detail=said or "The platform refused the request.", issue=issue
        )
    if said is not None and problem.status in (400, 422):
        return msgspec.structs.replace(problem, code="operation_outcome", status=422, detail=said)
    if said is not None and problem.status in (409, 412):
        return msgspec.structs.replace(problem, detail=said)
    return problem


# --- REST ---


def rest_detail(problem: Problem) -> str:
    if problem.code == "not_found":
        return NOT_FOUND
    if problem.code == "insufficient_scope" and not problem.detail.startswith("Insufficient scope"):
        return f"Insufficient scope: {problem.detail}"
    if problem.code == "internal_error":
        return "FHIR operation failed: Internal"
    return problem.detail


def rest(problem: Problem) -> bytes:
    return msgspec.json.encode({"detail": rest_detail(problem)})


# --- FHIR ---


def operation_outcome(problem: Problem) -> bytes:
    return msgspec.json.encode(
        {
            "resourceType": "OperationOutcome",
            "issue": [{"severity": "error", "code": problem.issue, "diagnostics": rest_detail(problem)}],
        }
    )


# --- tools ---

_tool_codes = {
    "unavailable": "upstream_unavailable",
    "busy": "upstream_unavailable",
    "invalid_token": "session_error",
    "sign_in_required": "session_error",
    "sign_in_cancelled": "session_error",
    "deleted": "not_found",
    "csrf_violation": "forbidden",
}


def tool_error(problem: Problem, tool: str) -> dict[str, Any]:
    message = f"Operation failed: {tool}" if problem.code == "internal_error" else rest_detail(problem)
    return {"error": _tool_codes.get(problem.code, problem.code), "message": message}


# --- headers that belong to a problem ---


class Challenges:
    """`WWW-Authenticate` and `Retry-After` for the problems that call for them (OA-3, OA-6)."""

    def __init__(self, public_url: str) -> None:
        self._metadata = f'Bearer resource_metadata="{public_url}/.well-known/oauth-protected-resource/mcp"'

    def headers(self, problem: Problem, *, token_sent: bool) -> list[Header]:
        headers: list[Header] = []
        if problem.status == 401:
            error = ', error="invalid_token"' if token_sent and problem.code == "invalid_token" else ""
            scope = problem.scope or "fhir.read"
            headers.append((b"www-authenticate", f'{self._metadata}{error}, scope="{scope}"'.encode("latin-1")))
            headers.append((b"cache-control", b"no-store"))
        elif problem.code == "insufficient_scope":
            scope = f', scope="{problem.scope}"' if problem.scope else ""
            value = f'{self._metadata}, error="insufficient_scope"{scope}'
            headers.append((b"www-authenticate", value.encode("latin-1")))
            headers.append((b"cache-control", b"no-store"))
        retry_after = problem.retry_after or (60 if problem.status == 429 else 0)
        if retry_after:
            headers.append((b"retry-after", str(retry_after).encode()))
        if problem.status == 413:
            # What is left of the body will not be read.
            headers.append((b"connection", b"close"))
        return headers
