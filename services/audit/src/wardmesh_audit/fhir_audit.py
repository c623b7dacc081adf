"""Ledger events in the words of FG-19: event, success, session, platform, resource, user, error, details."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Json = dict[str, Any]

LOGGER: Final = "fhir.audit"
SESSION_CHARS: Final = 16
_RESOURCE: Final = {
    "read": "resource.read",
    "vread": "resource.read",
    "history": "resource.read",
    "capabilities": "resource.read",
    "search": "resource.search",
    "create": "resource.create",
    "update": "resource.update",
    "patch": "resource.update",
    "delete": "resource.delete",
    "operation": "resource.operation",
    "batch": "resource.operation",
    "transaction": "resource.operation",
}
_FAMILIES: Final = frozenset({"access", "search", "write", "export", "break_glass", "disclosure"})
_VALIDATION: Final = frozenset({400, 405, 406, 412, 413, 415, 422})
_PLATFORM: Final = frozenset({502, 503, 504})


def line_of(event: Mapping[str, Any], sealed: Mapping[str, Any] | None = None) -> Json | None:
    """None for what is no event of this list: intents, and what the ledger says about itself."""
    data: Json = event["data"]
    outcome: Json = data.get("outcome") or {}
    name = _name(event, data, outcome)
    if not name or data.get("phase") == "intent":
        return None
    actor: Json = data.get("actor") or {}
    person: Json = actor.get("on_behalf_of") or actor
    resource: Json = data.get("resource") or {}
    opened = sealed or {}
    return {
        "timestamp": event["time"],
        "logger": LOGGER,
        "event": name,
        "success": outcome.get("code") == "success" and not name.startswith(("error.", "security.")),
        "session_id": str(person.get("session", ""))[:SESSION_CHARS] or None,
        "platform_id": resource.get("platform") or None,
        "resource_type": resource.get("type") or None,
        "resource_id": _resource_id(opened),
        "user_id": str(opened.get("actor") or person.get("id") or "") or None,
        "error": outcome.get("reason") or None if outcome.get("code") != "success" else None,
        "details": _details(event, data, actor, person),
    }


def _name(event: Mapping[str, Any], data: Json, outcome: Json) -> str:
    given = data.get("event")
    if given:
        return str(given)
    if str(event["type"]).split(".")[-2] not in _FAMILIES:
        return ""
    if outcome.get("code") == "success":
        return _RESOURCE.get(str((data.get("request") or {}).get("interaction")), "")
    status = outcome.get("http")
    if status in _VALIDATION:
        return "error.validation"
    return "error.platform" if status in _PLATFORM else "error.resource_access"


def _resource_id(opened: Mapping[str, Any]) -> str | None:
    """Sealed in the ledger; of a search with many results there is no single one."""
    asked = opened.get("resource")
    found: list[str] = opened.get("resources") or []
    name = asked if isinstance(asked, str) else found[0] if len(found) == 1 else ""
    return name.partition("/")[2] or None


def _details(event: Mapping[str, Any], data: Json, actor: Json, person: Json) -> Json:
    request: Json = data.get("request") or {}
    policy: Json = data.get("policy") or {}
    found = {
        "id": event["id"],
        "request_id": request.get("id"),
        "route": request.get("route"),
        "status": (data.get("outcome") or {}).get("http"),
        "agent": actor.get("id") if actor is not person else None,
        "ip": person.get("ip"),
        "reason": policy.get("reason"),
        "count": (data.get("resource") or {}).get("count"),
    }
    return {name: value for name, value in found.items() if value is not None}
