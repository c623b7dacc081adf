"""Tools that keep the words of another system: their own platforms, results and error texts (C-7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from wardmesh_common.asking import Refused
from wardmesh_common.errors import Problem
from wardmesh_common.vocabulary import Face
from wardmesh_gateway.answers import Answered
from wardmesh_gateway.caller import Visit
from wardmesh_gateway.tool_spec import ToolSpec

# These are answered with a challenge, so they keep their own form.
CHALLENGED = frozenset({"invalid_token", "sign_in_required", "insufficient_scope"})
# The faces have words of their own for these codes; here the text is the contract.
_KINDS = {
    **dict.fromkeys((400, 405, 406, 412, 413, 415, 422), "validation_error"),
    **dict.fromkeys((404, 410), "not_found"),
    **dict.fromkeys((401, 403), "auth_error"),
    **dict.fromkeys((409, 429, 502, 503, 504), "service_error"),
}
_CODES = {"not_found": "resource_not_found", "internal_error": "server_error"}


class Worded(Refused):
    """A refusal whose whole text is laid down by the tool's list."""

    def __init__(self, problem: Problem, text: str, call_id: str = "") -> None:
        code = _CODES.get(problem.code, problem.code)
        super().__init__(msgspec.structs.replace(problem, detail=text, code=code), call_id)


class Issue(Struct, frozen=True):
    """What an error text needs of an OperationOutcome's issue."""

    severity: str = "error"
    code: str = "processing"
    text: str = ""


class _Details(Struct):
    text: str = ""


class _Issue(Struct):
    severity: str = "error"
    code: str = "processing"
    diagnostics: str = ""
    details: _Details = msgspec.field(default_factory=_Details)


class _Outcome(Struct):
    resourceType: str = ""  # noqa: N815 (FHIR's name)
    issue: list[_Issue] = []


_outcomes = msgspec.json.Decoder(_Outcome)


def issues_of(body: bytes) -> list[Issue]:
    """The issues of an OperationOutcome, scrubbed by fhir-proxy; none when the body is something else."""
    try:
        outcome = _outcomes.decode(body or b"{}")
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        return []
    if outcome.resourceType != "OperationOutcome":
        return []
    return [Issue(each.severity, each.code, each.diagnostics or each.details.text) for each in outcome.issue]


def typed_error(kind: str, message: str) -> dict[str, Any]:
    """A failure as the tools of HL-15 tell it."""
    return {"error": True, "type": kind, "message": message}


def typed_problem(problem: Problem) -> dict[str, Any]:
    """What went wrong in the five kinds of HL-15; 404 and 410 are the same to its callers."""
    kind = _KINDS.get(problem.status, "server_error")
    return typed_error(kind, problem.detail)


class Family(Protocol):
    """Answers the calls of its tools; the arguments have passed the tool's schema."""

    async def call(
        self, tool: ToolSpec, arguments: Mapping[str, Any], visit: Visit, face: Face, traceparent: str
    ) -> Answered: ...
