"""What can go wrong, named by what happened. Each error carries the Problem that the caller will see.

    WardmeshError
    ├── BadRequest 400 validation_error      ├── Unauthenticated 401 invalid_token
    ├── Denied 403 forbidden                 ├── InsufficientScope 403 insufficient_scope
    ├── NotFound 404 not_found               ├── PlatformUnknown 404 platform_not_found
    ├── Gone 410 deleted                     ├── Conflict 409 conflict
    ├── PreconditionFailed 412 conflict      ├── TooLarge 413 too_costly
    ├── Unprocessable 422 operation_outcome  ├── RateLimited 429 throttled
    ├── Internal 500 internal_error          ├── BadUpstream 502 upstream_unavailable
    └── Unavailable 503 unavailable          └── TimedOut 504 timeout
        ├── Busy 503 busy                        └── OutcomeUnknown 504 outcome_unknown
        ├── AuditUnavailable 503 audit_unavailable
        ├── PlatformUnconfigured 503 platform_not_configured
        └── PlatformDown 503 upstream_unavailable

A `detail` is written by us and never quotes input, a person, a host or a library's message (AR-8, X-3).
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error between stations; each face renders it in its own shape (problem JSON, OperationOutcome, MCP)."""

    code: str
    status: int
    detail: str
    issue: str = "exception"  # FHIR issue-type for an OperationOutcome
    retry_after: int = 0  # seconds; 0 = not said
    scope: str = ""  # scopes that would have sufficed, for a step-up challenge
    station: str = ""  # who ended the journey


class WardmeshError(Exception):
    """Base of every expected failure; `code`, `status` and `issue` are class facts, `detail` is the instance's."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    issue: ClassVar[str] = "exception"
    event: ClassVar[str] = ""  # how the record calls it, in the words of FG-19, where one fits

    def __init__(self, detail: str, *, retry_after: int = 0, scope: str = "") -> None:
        super().__init__(detail)
        self.call_id = ""  # of the call that ended so, once there is one
        self.problem = Problem(
            code=self.code,
            status=self.status,
            detail=detail,
            issue=self.issue,
            retry_after=retry_after,
            scope=scope,
        )


class BadRequest(WardmeshError):
    code, status, issue = "validation_error", 400, "invalid"


class Unauthenticated(WardmeshError):
    code, status, issue = "invalid_token", 401, "login"


class SignInRequired(Unauthenticated):
    """The caller is known to us but has no grant on the platform."""

    code = "sign_in_required"


class Denied(WardmeshError):
    code, status, issue = "forbidden", 403, "forbidden"


class InsufficientScope(Denied):
    code, event = "insufficient_scope", "security.scope_violation"


class NotFound(WardmeshError):
    code, status, issue = "not_found", 404, "not-found"


class PlatformUnknown(NotFound):
    code = "platform_not_found"


class NotAllowed(WardmeshError):
    code, status, issue = "method_not_allowed", 405, "not-supported"


class Conflict(WardmeshError):
    code, status, issue = "conflict", 409, "conflict"


class Gone(WardmeshError):
    code, status, issue = "deleted", 410, "deleted"


class PreconditionFailed(WardmeshError):
    code, status, issue = "precondition_failed", 412, "conflict"


class TooLarge(WardmeshError):
    code, status, issue = "too_costly", 413, "too-costly"


class Unprocessable(WardmeshError):
    code, status, issue = "operation_outcome", 422, "processing"


class RateLimited(WardmeshError):
    code, status, issue = "throttled", 429, "throttled"


class Internal(WardmeshError):
    pass


class BadUpstream(WardmeshError):
    code, status, issue = "upstream_unavailable", 502, "transient"


class Unavailable(WardmeshError):
    code, status, issue = "unavailable", 503, "transient"


class Busy(Unavailable):
    code, issue = "busy", "throttled"


class AuditUnavailable(Unavailable):
    code = "audit_unavailable"


class PlatformUnconfigured(Unavailable):
    code = "platform_not_configured"


class PlatformDown(Unavailable):
    code = "upstream_unavailable"


class TimedOut(WardmeshError):
    code, status, issue = "timeout", 504, "timeout"


class OutcomeUnknown(TimedOut):
    """A write was handed over and no answer came back: it may or may not have happened."""

    code = "outcome_unknown"
