"""The error texts of the datastore tools, word by word (HL-12, HL-13)."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from wardmesh_common.errors import BadRequest, BadUpstream, Denied, Problem
from wardmesh_gateway.tool_family import Worded, issues_of

READ_ONLY = "Operation not permitted: HealthLake MCP server is in read-only mode"
BAD_ID = "datastore_id must be 32 characters, each 0-9 or a-f"
BAD_ARN = "resource_arn is not the ARN of a datastore"
BAD_REGION = "region_name is not the name of a region"
# Our code of a refusal that never reached a control plane -> the one that AWS gives for it.
_AWS = {
    "forbidden": "AccessDeniedException",
    "not_found": "ResourceNotFoundException",
    "validation_error": "ValidationException",
    "conflict": "ConflictException",
    "throttled": "ThrottlingException",
    "busy": "ThrottlingException",
}


class _Refusal(Struct):
    code: str = ""
    message: str = ""


_refusals = msgspec.json.Decoder(_Refusal)


def read_only() -> Worded:
    return Worded(Denied(READ_ONLY).problem, READ_ONLY)


def not_valid(text: str) -> Worded:
    return Worded(BadRequest(text).problem, _control("ValidationException", text))


def no_list(call_id: str) -> Worded:
    """The control plane answered well, but not with what was asked for."""
    problem = BadUpstream("The control plane's answer holds no list of jobs.").problem
    return Worded(problem, _http(problem), call_id)


def of_control(problem: Problem, body: bytes, call_id: str) -> Worded:
    """The control plane's own code and text where it was asked; AWS's code for ours where it was not."""
    try:
        said = _refusals.decode(body or b"{}")
    except (msgspec.DecodeError, msgspec.ValidationError):
        said = _Refusal()
    if said.code:
        return Worded(problem, _control(said.code, said.message), call_id)
    code = _AWS.get(problem.code)
    return Worded(problem, _control(code, problem.detail) if code else _http(problem), call_id)


def of_data(problem: Problem, body: bytes, call_id: str) -> Worded:
    issues = issues_of(body)
    if not issues:
        return Worded(problem, _http(problem), call_id)
    told = "; ".join(f"{issue.severity.upper()}: {issue.code} - {issue.text}" for issue in issues)
    return Worded(problem, f"FHIR Operation Failed: {told}", call_id)


def _control(code: str, message: str) -> str:
    return f"AWS HealthLake Error ({code}): {message}"


def _http(problem: Problem) -> str:
    return f"HTTP {problem.status}: {problem.detail}"
