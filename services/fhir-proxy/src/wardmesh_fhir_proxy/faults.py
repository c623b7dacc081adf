"""An upstream error as ours: mapped by table, freed of hosts, paths and stack text (PX-8)."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from wardmesh_common.contracts import Outcome
from wardmesh_common.errors import Problem
from wardmesh_fhir_proxy import json_exact
from wardmesh_fhir_proxy.descriptor import Descriptor
from wardmesh_fhir_proxy.envelope import operation_outcome

# upstream status -> (status for the caller, problem code, OO issue code, text)
_TABLE: dict[int, tuple[int, str, str, str]] = {
    400: (400, "operation_outcome", "invalid", "The platform refused the request as malformed."),
    401: (401, "sign_in_required", "login", "The platform asks for a new sign-in."),
    403: (403, "forbidden", "forbidden", "The platform refused access."),
    404: (404, "not_found", "not-found", "Resource not found"),
    405: (405, "method_not_allowed", "not-supported", "The platform does not offer this interaction."),
    406: (406, "operation_outcome", "not-supported", "The platform does not offer this format."),
    409: (409, "conflict", "conflict", "The platform reports a conflict."),
    410: (410, "deleted", "deleted", "The resource was deleted."),
    412: (412, "precondition_failed", "conflict", "A precondition of the request does not hold."),
    413: (413, "too_costly", "too-costly", "The platform finds the request too large."),
    415: (415, "operation_outcome", "not-supported", "The platform does not accept this media type."),
    422: (422, "operation_outcome", "processing", "The platform refused the content."),
    429: (429, "throttled", "throttled", "The platform asks to slow down."),
}
_REFUSED = (400, "operation_outcome", "processing", "The platform refused the request.")
_BROKEN = (502, "upstream_unavailable", "transient", "The platform failed to answer.")
_MEANS = {"re-authorise": 401, "throttled": 429, "deny": 403, "not-found": 404}
_KEPT_HOSTS = r"(?:[a-z0-9-]+\.)*(?:hl7\.org|loinc\.org|snomed\.info|unitsofmeasure\.org)"

_STACK = re.compile(
    r"(?im)(^\s*at\s+[\w.$<>/]+\s*\(|\bat\s+[\w$]+(?:\.[\w$<>]+)+\(|Traceback \(most recent|^\s*File \"|"
    r"\bCaused by:|\bstack ?trace\b|\s+in\s+[A-Z]:\\|^\s*#\d+\s)"
)
_URL = re.compile(r"(?i)\b[a-z][a-z0-9+.-]*://(?:[^\s/\"'<>]*)[^\s\"'<>]*")
_KEPT_URL = re.compile(rf"(?i)https?://{_KEPT_HOSTS}(?:[/|][^\s\"'<>]*)?[.,;:)]?")
_IP = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\[[0-9a-fA-F:]{3,}\](?::\d+)?")
_HOST_PORT = re.compile(r"(?i)\b(?:localhost|[a-z0-9][a-z0-9-]*(?:\.[a-z0-9-]+)*):\d{2,5}\b")
_HOST = re.compile(r"(?i)\b(?:[a-z0-9-]+\.)+(?:com|org|net|io|gov|edu|local|internal|lan|corp|cloud|svc|dev|info)\b")
_PATH = re.compile(r"(?<![\w/])/(?:[\w.@$-]+/)+[\w.@$-]*|\b[A-Za-z]:\\[^\s\"']+")
_CLASS = re.compile(r"\b(?:[a-z_][\w$]*\.){2,}[A-Z][\w$]*(?:Exception|Error)?\b|\b[A-Z]\w*(?:Exception|Error)\b:?")
MAX_TEXT = 1000


def clean(text: str, hosts: tuple[str, ...] = ()) -> str:
    """Free text of a platform without addresses, file paths, class names and stacks."""
    stack = _STACK.search(text)
    if stack:
        text = text[: stack.start()]
    text = _URL.sub(lambda m: m[0] if _KEPT_URL.fullmatch(m[0]) else "[removed]", text[: MAX_TEXT * 4])
    for host in hosts:
        text = re.sub(re.escape(host), "[removed]", text, flags=re.IGNORECASE)
    for pattern in (_IP, _HOST_PORT, _PATH, _CLASS):
        text = pattern.sub("[removed]", text)
    text = _HOST.sub(lambda m: m[0] if re.fullmatch(_KEPT_HOSTS, m[0], re.IGNORECASE) else "[removed]", text)
    return text.strip()[:MAX_TEXT]


def clean_outcome(resource: dict[str, Any], hosts: tuple[str, ...]) -> bytes:
    """An OperationOutcome with only what the issue list says, its texts cleaned."""
    issues: list[dict[str, Any]] = []
    for issue in resource.get("issue") or []:
        if not isinstance(issue, dict):
            continue
        kept = {k: issue[k] for k in ("severity", "code", "expression", "location") if k in issue}
        if isinstance(issue.get("diagnostics"), str):
            kept["diagnostics"] = clean(issue["diagnostics"], hosts)
        details = issue.get("details")
        if isinstance(details, dict):
            kept["details"] = _clean_details(details, hosts)
        issues.append(kept)
    return json_exact.encode({"resourceType": "OperationOutcome", "issue": issues})


def _clean_details(details: dict[str, Any], hosts: tuple[str, ...]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    if isinstance(details.get("text"), str):
        kept["text"] = clean(details["text"], hosts)
    codings = [c for c in details.get("coding") or [] if isinstance(c, dict)]
    if codings:
        kept["coding"] = [{k: c[k] for k in ("system", "code") if k in c} for c in codings]
    return kept


def read_outcome(body: bytes) -> dict[str, Any] | None:
    """The body as an OperationOutcome that has issues, or None for HTML, text, nothing or anything else."""
    try:
        document = json_exact.decode(body) if body[:1] == b"{" else None
    except (msgspec.DecodeError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("resourceType") != "OperationOutcome":
        return None
    return document if isinstance(document.get("issue"), list) and document["issue"] else None


def meaning(descriptor: Descriptor, status: int, body: bytes) -> int:
    """The status a vendor really means, by its error map."""
    text = body[:20000].decode("utf-8", "replace").lower()
    for rule in descriptor.error_map:
        if rule.status == status and rule.body.lower() in text:
            return _MEANS[rule.means]
    return status


def outcome_of(
    descriptor: Descriptor, hosts: tuple[str, ...], status: int, body: bytes, headers: dict[str, str], retry_after: int
) -> Outcome:
    """The Outcome for an upstream answer that is not a success."""
    meant = meaning(descriptor, status, body)
    known = _TABLE.get(meant) or (_REFUSED if 400 <= meant < 500 else _BROKEN)
    own_status, code, issue, text = known
    document = read_outcome(body)
    if meant == 412 and document and "multiple" in str(document["issue"]).lower():
        issue = "multiple-matches"
    relayed = clean_outcome(document, hosts) if document else operation_outcome("error", issue, text)
    if meant == 422 or (own_status == 400 and document):
        code = "operation_outcome"
    problem = Problem(
        code=code,
        status=422 if code == "operation_outcome" else own_status,
        detail=text,
        issue=issue,
        retry_after=retry_after,
        station="fhir-proxy",
    )
    return Outcome(status=own_status, body=relayed, headers=headers, problem=problem)
