"""By which elements of an event a report can be sorted: every open one (ONC 170.315(d)(3))."""

from __future__ import annotations

from wardmesh_audit.projection import MALFORMED


def _leaf(*path: str) -> str:
    """An element that has no column; malformed leaves are not JSON."""
    places = ", ".join(f"'{place}'" for place in ("data", *path))
    text = f"convert_from(leaf, 'UTF8')::jsonb #>> array[{places}]"
    return f"case when event_type <> '{MALFORMED}' then {text} end"


def _instant(column: str) -> str:
    return f"to_char({column} at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"


# SQL texts; compared as text, so numbers are padded.
SORTS: dict[str, str] = {
    "index": "lpad(seq::text, 20, '0')",
    "id": "event_id",
    "time": _instant("occurred_at"),
    "recorded": _instant("recorded_at"),
    "tenant": "tenant",
    "type": "event_type",
    "phase": "phase",
    "action": "action",
    "outcome": "outcome",
    "reason": _leaf("outcome", "reason"),
    "status": f"lpad({_leaf('outcome', 'http')}, 4, '0')",
    "actor": "actor_id",
    "actor_type": _leaf("actor", "type"),
    "role": f"coalesce({_leaf('actor', 'role')}, {_leaf('actor', 'on_behalf_of', 'role')})",
    "client": f"coalesce({_leaf('actor', 'client_id')}, {_leaf('actor', 'on_behalf_of', 'client_id')})",
    "address": f"coalesce({_leaf('actor', 'ip')}, {_leaf('actor', 'on_behalf_of', 'ip')})",
    "agent": f"case when actor_id is distinct from {_leaf('actor', 'id')} then {_leaf('actor', 'id')} end",
    "patient": "encode(patient_ref, 'hex')",
    "purpose": "purpose",
    "break_glass": "break_glass",
    "resource": "resource_type",
    "platform": _leaf("resource", "platform"),
    "count": f"lpad({_leaf('resource', 'count')}, 12, '0')",
    "rule": _leaf("policy", "rule"),
    "policy_version": _leaf("policy", "version"),
    "decision": _leaf("policy", "decision"),
    "request": "request_id",
    "route": _leaf("request", "route"),
    "face": _leaf("request", "face"),
    "trace": "trace_id",
    "producer": "producer",
    "producer_seq": "lpad(producer_seq::text, 20, '0')",
}
