"""OCSF 1.7 API Activity (class 6003) out of ledger events: what SIEM systems read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from typing import Any, Final

Json = dict[str, Any]

SCHEMA_VERSION: Final = "1.7.0"
CLASS_UID: Final = 6003
CATEGORY_UID: Final = 6
_ACTIVITY: Final = {"C": (1, "Create"), "R": (2, "Read"), "U": (3, "Update"), "D": (4, "Delete")}
_OTHER: Final = 99
_USER_TYPE: Final = {"practitioner": 1, "patient": 1, "service": 4, "ai_agent": 4}
_INFORMATIONAL, _LOW, _MEDIUM, _HIGH = 1, 2, 3, 4
_SEVERITY: Final = {_INFORMATIONAL: "Informational", _LOW: "Low", _MEDIUM: "Medium", _HIGH: "High"}


def api_activity(event: Mapping[str, Any], *, log: int = 0, index: int = 0) -> Json:
    """One event. Sealed fields stay sealed: resources and patients are named by pseudonym."""
    data: Json = event["data"]
    event_class = event["type"].split(".")[-2]
    activity, name = _ACTIVITY.get(data["action"], (_OTHER, str(data["action"])))
    severity = _severity(event_class, data)
    return {
        "activity_id": activity,
        "activity_name": name,
        "category_uid": CATEGORY_UID,
        "category_name": "Application Activity",
        "class_uid": CLASS_UID,
        "class_name": "API Activity",
        "type_uid": CLASS_UID * 100 + activity,
        "type_name": f"API Activity: {name if activity != _OTHER else 'Other'}",
        "time": _milliseconds(event["time"]),
        "severity_id": severity,
        "severity": _SEVERITY[severity],
        **_status(data),
        "metadata": _metadata(event, event_class, log, index),
        "actor": _actor(data["actor"]),
        "api": _api(event, event_class, data),
        "src_endpoint": _endpoint(event, data["actor"]),
        **_resources(data),
        "unmapped": _unmapped(event, data),
    }


def malformed(index: int, time_ms: int, *, log: int = 0, size: int = 0) -> Json:
    """Bytes that were no event: that they came is what a SIEM has to know."""
    return {
        "activity_id": _OTHER,
        "activity_name": "malformed",
        "category_uid": CATEGORY_UID,
        "class_uid": CLASS_UID,
        "type_uid": CLASS_UID * 100 + _OTHER,
        "time": time_ms,
        "severity_id": _MEDIUM,
        "status_id": 2,
        "metadata": {"version": SCHEMA_VERSION, "product": _product(), "log_name": f"audit/{log}", "sequence": index},
        "actor": {"app_name": "unknown"},
        "api": {"operation": "malformed"},
        "src_endpoint": {"name": "unknown"},
        "unmapped": {"bytes": size},
    }


def _severity(event_class: str, data: Json) -> int:
    if event_class == "alert":
        return _HIGH
    if event_class == "break_glass" or (data.get("break_glass") or {}).get("used"):
        return _MEDIUM
    return _INFORMATIONAL if data["outcome"]["code"] == "success" else _LOW


def _status(data: Json) -> Json:
    outcome: Json = data["outcome"]
    good = outcome["code"] == "success"
    found: Json = {"status_id": 1 if good else 2, "status": "Success" if good else "Failure"}
    if "http" in outcome:
        found["status_code"] = str(outcome["http"])
    detail = outcome.get("reason") or ("" if good else outcome["code"])
    return found | ({"status_detail": detail} if detail else {})


def _metadata(event: Mapping[str, Any], event_class: str, log: int, index: int) -> Json:
    found: Json = {
        "version": SCHEMA_VERSION,
        "product": _product(),
        "uid": event["id"],
        "event_code": event_class,
        "log_name": f"audit/{log}",
        "sequence": index,
        "original_time": event["time"],
        "tenant_uid": event["tenant"],
    }
    request = (event["data"].get("request") or {}).get("id")
    return found | ({"correlation_uid": request} if request else {})


def _product() -> Json:
    return {"name": "Wardmesh audit", "vendor_name": "Wardmesh", "version": version("wardmesh-audit")}


def _actor(actor: Json) -> Json:
    """An AI agent is the application, the person it acts for is the user."""
    person: Json = actor.get("on_behalf_of") or actor
    user: Json = {"uid": person["id"], "type": person["type"], "type_id": _USER_TYPE.get(person["type"], 0)}
    if roles := person.get("roles") or ([person["role"]] if "role" in person else []):
        user["groups"] = [{"name": role} for role in roles]
    found: Json = {"user": user}
    if actor is not person:
        found["app_name"] = actor["id"]
    if "client_id" in person:
        found["app_uid"] = person["client_id"]
    if "session" in person:
        found["session"] = {"uid": person["session"]}
    return found


def _api(event: Mapping[str, Any], event_class: str, data: Json) -> Json:
    request: Json = data.get("request") or {}
    found: Json = {
        "operation": request.get("interaction") or str(data["action"]),
        "service": {"name": event["source"].split(":")[2]},
        "group": {"name": event_class},
    }
    if "id" in request:
        found["request"] = {"uid": request["id"]}
    if "http" in data["outcome"]:
        found["response"] = {"code": data["outcome"]["http"]}
    return found


def _endpoint(event: Mapping[str, Any], actor: Json) -> Json:
    ip = (actor.get("on_behalf_of") or actor).get("ip") or actor.get("ip")
    return {"ip": ip} if ip else {"name": event["source"]}


def _resources(data: Json) -> Json:
    resource: Json = data.get("resource") or {}
    if not resource and not data.get("patient"):
        return {}
    found: Json = {"name": resource.get("platform") or "ledger", "type": resource.get("type") or "Patient"}
    if data.get("patient"):
        found["uid"] = data["patient"]["pseudonym"]
    if "version" in resource:
        found["version"] = resource["version"]
    if resource.get("labels"):
        found["labels"] = resource["labels"]
    return {"resources": [found]}


def _unmapped(event: Mapping[str, Any], data: Json) -> Json:
    kept = ("purpose_of_use", "break_glass", "policy", "relationship", "disclosure", "facts", "phase", "corrects")
    found: Json = {name: data[name] for name in kept if name in data}
    if "count" in (data.get("resource") or {}):
        found["count"] = data["resource"]["count"]
    return found | ({"traceparent": event["traceparent"]} if "traceparent" in event else {})


def _milliseconds(instant: str) -> int:
    return round(datetime.fromisoformat(instant).timestamp() * 1000)
