"""The routes of the ledger as the OpenAPI document describes them (audit.md section 13)."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_UUID: Json = {"type": "string", "format": "uuid", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}
_DAY: Json = {"type": "string", "description": "A date, or an instant of RFC 3339.", "examples": ["2026-01-31"]}
_PARTS: Json = {
    "log": {"type": "integer", "minimum": 0, "maximum": 999},
    "event_id": _UUID,
    "hold_id": _UUID,
    "review_id": _UUID,
    "patient_id": {"type": "string", "pattern": r"^[A-Za-z0-9\-.]{1,64}$"},
    "actor_id": {"type": "string", "minLength": 1, "maxLength": 200},
    "day": {"type": "string", "format": "date"},
    "level": {"type": "integer", "minimum": 0, "maximum": 7},
    "number": {"type": "string", "pattern": "^[0-9]{3}$", "description": "Three digits; larger ones are x001/234."},
}
_FILTERS: Json = {
    **dict.fromkeys(("actor", "type", "action", "outcome", "phase", "purpose", "resource", "request"), _TEXT),
    "pseudonym": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "patient": _PARTS["patient_id"],
    "platform": {"type": "string", "pattern": r"^[a-z][a-z0-9\-]+$"},
    "log": _PARTS["log"],
    "break_glass": {"type": "boolean"},
    "from": _DAY,
    "to": _DAY,
    "cursor": _TEXT,
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
}
_REPORT: Json = {name: _FILTERS[name] for name in ("platform", "from", "to", "cursor", "limit")} | {
    "format": {"enum": ["json", "csv", "pdf"]}
}
_SEALED: Json = {"sealed": {"enum": ["keep", "open"]}}
_JSON = {"application/json": {"schema": {"type": "object"}}}
_PLAIN = {"text/plain": {"schema": _TEXT}}
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_FILES = {**_JSON, "text/csv": {"schema": _TEXT}, "application/pdf": {"schema": {"type": "string", "format": "binary"}}}
_STREAM = {"text/event-stream": {"schema": _TEXT}, "application/x-ndjson": {"schema": _TEXT}}
_PROBLEM = {
    "application/problem+json": {
        "schema": {
            "type": "object",
            "properties": dict.fromkeys(("type", "title", "detail"), _TEXT) | {"status": {"type": "integer"}},
            "required": ["type", "title", "status", "detail"],
        }
    }
}
_HOLD: Json = {
    "reason": {"type": "string", "minLength": 1, "maxLength": 1000},
    **{name: _FILTERS[name] for name in ("patient", "platform", "pseudonym", "actor", "from", "to")},
}
_SUSPENSION: Json = {name: _HOLD[name] for name in ("patient", "platform", "reason", "from", "to")}
_OUTCOME: Json = {
    "outcome": {"enum": ["appropriate", "inappropriate", "escalated", "false_positive"]},
    "evidence": {"type": "string", "minLength": 1, "maxLength": 4000},
}

# path -> method, operation, summary, what a good answer is, query parameters
_READS: tuple[tuple[str, str, str, Json, Json], ...] = (
    ("/log/{log}/checkpoint", "auditCheckpoint", "Newest signed checkpoint", _PLAIN, {}),
    ("/log/logs", "auditLogs", "Newest signed list of all logs", _PLAIN, {}),
    ("/log/logs/{day}", "auditLogsOfDay", "The signed list of all logs of a day (UTC)", _PLAIN, {}),
    ("/log/{log}/tile/{level}/{number}", "auditTile", "A tile of hashes (C2SP tlog-tiles)", _BYTES, {}),
    ("/log/{log}/tile/entries/{number}", "auditEntries", "A bundle of entries (C2SP tlog-tiles)", _BYTES, {}),
    ("/v1/events", "auditEvents", "Search the ledger", _JSON, {**_FILTERS, "sort": _TEXT, "order": {"enum": ["oldest", "newest"]}}),  # noqa: E501
    ("/v1/events/tail", "auditTail", "Follow the ledger", _STREAM, _FILTERS),
    ("/v1/events/{event_id}", "auditEvent", "One event", _JSON, _SEALED),
    ("/v1/events/{event_id}/proof", "auditProof", "Inclusion proof (C2SP tlog-proof)", _PLAIN, {}),
    ("/v1/patients/{patient_id}/access-report", "accessReport", "Who accessed a record", _FILES, _REPORT),
    ("/v1/actors/{actor_id}/activity-report", "activityReport", "What one user did", _FILES, {k: v for k, v in _REPORT.items() if k != "platform"}),  # noqa: E501
    ("/v1/disclosures", "disclosures", "Accounting of disclosures", _FILES, {**{k: _FILTERS[k] for k in ("patient", "platform", "from", "to")}, "format": _REPORT["format"], **_SEALED}),  # noqa: E501
    ("/v1/status", "auditStatus", "Sizes, checkpoints, last verification, guard", _JSON, {}),
    ("/v1/gaps", "auditGaps", "Producers with missing events", _JSON, {}),
    ("/v1/holds", "listHolds", "Legal holds", _JSON, {"released": {"type": "boolean"}}),
    ("/v1/reviews", "listReviews", "The review queue", _JSON, {"status": {"enum": ["open", "closed", "all"]}, "limit": _FILTERS["limit"], "format": {"enum": ["json", "csv"]}}),  # noqa: E501
    ("/audit-latest/", "auditLatest", "The caller's ten newest records", _JSON, {}),
)  # fmt: skip
_ACTS: tuple[tuple[str, str, str, str, Json, tuple[str, ...]], ...] = (
    ("/v1/holds", "placeHold", "Place a legal hold", "201", _HOLD, ("reason",)),
    ("/v1/holds/{hold_id}/release", "releaseHold", "Ask for a release; a second person releases", "200", {}, ()),
    ("/v1/reviews/{review_id}", "closeReview", "Close a review", "200", _OUTCOME, ("outcome", "evidence")),
    ("/v1/disclosures/suspensions", "suspendDisclosures", "Suspend the accounting for an authority", "201", _SUSPENSION,
     ("patient", "reason", "from", "to")),
)  # fmt: skip


def audit_paths(reasons: dict[str, str]) -> Json:
    """`reasons` says what each status means; every route may answer with each of them."""
    refusals = {status: {"description": text, "content": _PROBLEM} for status, text in reasons.items()}
    paths: Json = {}
    for path, name, summary, good, query in _READS:
        answers: Json = {"200": {"description": "Done.", "content": good}, **refusals}
        operation: Json = {"operationId": name, "summary": summary, "tags": ["ledger"], "responses": answers}
        if query:
            operation["parameters"] = [_parameter(key, "query", schema) for key, schema in query.items()]
        _item(paths, path)["get"] = operation
    for path, name, summary, status, properties, required in _ACTS:
        answers = {status: {"description": "Done.", "content": _JSON}, **refusals}
        operation: Json = {"operationId": name, "summary": summary, "tags": ["ledger"], "responses": answers}
        if properties:
            schema = {"type": "object", "properties": properties, "required": list(required)}
            body = {"application/json": {"schema": {**schema, "additionalProperties": False}}}
            operation["requestBody"] = {"required": True, "content": body}
        _item(paths, path)["post"] = operation
    return paths


def _item(paths: Json, path: str) -> Json:
    if path not in paths:
        names = [name for name in _PARTS if f"{{{name}}}" in path]
        paths[path] = {"parameters": [_parameter(name, "path", _PARTS[name]) for name in names]} if names else {}
    return paths[path]


def _parameter(name: str, place: str, schema: Json) -> Json:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}
