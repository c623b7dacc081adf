"""What can go wrong, as the FHIR face tells it: a status and one OperationOutcome, never the input (ST-65)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import UNSET, Struct, UnsetType

MEDIA_TYPE = "application/fhir+json; charset=utf-8"
DEPTH_EXTENSION = "urn:wardmesh:fhir:validation-depth"


class Extension(Struct, kw_only=True, rename="camel"):
    url: str
    value_code: str


class Issue(Struct, kw_only=True):
    """One issue; `diagnostics` is written by us and quotes nothing that was sent."""

    severity: str = "error"
    code: str = "invalid"
    diagnostics: str
    expression: tuple[str, ...] | UnsetType = UNSET


class OperationOutcome(Struct, kw_only=True, rename="camel"):
    resource_type: str = "OperationOutcome"
    extension: tuple[Extension, ...] | UnsetType = UNSET
    issue: tuple[Issue, ...]


def outcome_body(issues: Sequence[Issue], extensions: Sequence[Extension] = ()) -> bytes:
    """The OperationOutcome as JSON."""
    return msgspec.json.encode(OperationOutcome(extension=tuple(extensions) or UNSET, issue=tuple(issues)))


class Fault(Exception):
    """An expected refusal."""

    def __init__(
        self,
        status: int,
        code: str,
        diagnostics: str,
        *,
        expression: str = "",
        headers: tuple[tuple[str, str], ...] = (),
        issues: tuple[Issue, ...] = (),
        extensions: tuple[Extension, ...] = (),
    ) -> None:
        super().__init__(diagnostics)
        self.status = status
        self.headers = headers
        self.extensions = extensions
        where = (expression,) if expression else UNSET
        self.issues = issues or (Issue(code=code, diagnostics=diagnostics, expression=where),)

    @property
    def body(self) -> bytes:
        return outcome_body(self.issues, self.extensions)

    def inside(self, place: str) -> Fault:
        """The same fault, located inside an entry of a Bundle."""
        moved = tuple(
            Issue(
                severity=issue.severity,
                code=issue.code,
                diagnostics=issue.diagnostics,
                expression=(place, *(issue.expression or ())),
            )
            for issue in self.issues
        )
        return Fault(self.status, "", str(self), headers=self.headers, issues=moved, extensions=self.extensions)


def invalid(diagnostics: str, expression: str = "") -> Fault:
    """400: the request cannot be understood."""
    return Fault(400, "invalid", diagnostics, expression=expression)


def not_found(diagnostics: str = "There is no such resource.") -> Fault:
    return Fault(404, "not-found", diagnostics)


def not_supported(diagnostics: str, status: int = 400) -> Fault:
    return Fault(status, "not-supported", diagnostics)


def precondition_failed(diagnostics: str) -> Fault:
    return Fault(412, "conflict", diagnostics)


def several_matches() -> Fault:
    return Fault(412, "multiple-matches", "The criteria match more than one resource.")
