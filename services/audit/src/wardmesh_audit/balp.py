"""FHIR R4 AuditEvents after IHE BALP out of ledger events: for export and for FHIR audit repositories."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any, Final

from wardmesh_audit.balp_profiles import (
    DISCLOSURE,
    EMERGENCY,
    PROFILES,
    QUERY,
    TERMS,
    Coding,
    Row,
    coding,
    row_of,
    subtype_of,
)

Json = dict[str, Any]

PSEUDONYMS: Final = "urn:wardmesh:pseudonym"
EVENTS: Final = "urn:wardmesh:event"
_ENTITY: Final = TERMS + "audit-entity-type"
_ROLE: Final = TERMS + "object-role"
_XREQUEST: Final = coding("https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType", "XrequestId")
_OUTCOME: Final = {"success": "0", "denied": "4", "error": "8", "withheld": "8", "unterminated": "12"}


def audit_event(event: Mapping[str, Any], opened: Mapping[str, Any] | None = None) -> Json:
    """One AuditEvent. `opened` is what was sealed, when it may be shown and still can be: never after shredding."""
    data: Json = event["data"]
    known = opened or {}
    row = row_of(event["type"].split(".")[-2], data)
    made: Json = {
        "resourceType": "AuditEvent",
        "id": event["id"],
        **_profile(row, data, known),
        "type": row.type,
        "subtype": [subtype_of(row, data), *_emergency(data)],
        "action": row.action,
        "recorded": event["time"],
        **_outcome(data),
        "agent": _agents(row, data, known, str(event["source"])),
        "source": {
            "site": str(event.get("tenant", "")) or "default",
            "observer": _who(str(event["source"])),
            "type": [coding(TERMS + "security-source-type", "4", "Application Server")],
        },
    }
    entities = [*_records(row, event, known), *_patient(data, known), *_transaction(data)]
    return made | ({"entity": entities} if entities else {})


def bundle(events: Iterable[Json]) -> Json:
    """A batch that a FHIR server takes as often as it comes: every event has its own id."""
    entries = [{"resource": each, "request": {"method": "PUT", "url": f"AuditEvent/{each['id']}"}} for each in events]
    return {"resourceType": "Bundle", "type": "batch", "entry": entries}


def _profile(row: Row, data: Json, known: Mapping[str, Any]) -> Json:
    """The profiles cover success only; a search is only a Patient one when there is a patient."""
    plain = not row.profile or data.get("phase") == "intent" or data["outcome"]["code"] != "success"
    if plain or (row is DISCLOSURE and not data.get("patient")):
        return {}
    about_patient = data.get("patient") or known.get("patient")
    prefix = "Patient" if about_patient and row is not DISCLOSURE else ""
    return {"meta": {"profile": [f"{PROFILES}{prefix}{row.profile}"]}}


def _outcome(data: Json) -> Json:
    if data.get("phase") == "intent":
        return {"outcomeDesc": "intended: the outcome is another event"}
    code, reason = data["outcome"]["code"], data["outcome"].get("reason", "")
    return {"outcome": _OUTCOME.get(code, "8")} | ({"outcomeDesc": reason} if reason else {})


def _emergency(data: Json) -> list[Coding]:
    found = EMERGENCY.get(data["outcome"].get("reason", ""))
    return [found] if found else []


def _agents(row: Row, data: Json, known: Mapping[str, Any], source: str) -> list[Json]:
    actor: Json = data["actor"]
    person: Json = actor.get("on_behalf_of") or actor
    agents = [_recipient(row, known) if row is DISCLOSURE else _client(row, actor, person), _server(row, data, source)]
    if person.get("type") not in ("practitioner", "patient"):
        agents[0]["requestor"] = True  # a service on its own: somebody has to be the requestor
        return agents
    return [*agents, _user(row, data, person)]


def _client(row: Row, actor: Json, person: Json) -> Json:
    name = actor["id"] if actor["type"] == "ai_agent" else person.get("client_id") or actor["id"]
    if actor["type"] == "patient" and not person.get("client_id"):
        name = "unidentified application"
    ip = person.get("ip") or actor.get("ip")
    network = {"address": ip, "type": "2"} if ip else {"address": name, "type": "1"}
    return {"type": {"coding": [row.client]}, "who": _who(name), "requestor": False, "network": network}


def _recipient(row: Row, known: Mapping[str, Any]) -> Json:
    """Whom the data went to: sealed unless opened."""
    name = str(known.get("recipient") or "sealed")
    network = {"address": str(known.get("address") or name), "type": "1"}
    return {"type": {"coding": [row.client]}, "who": _who(name), "requestor": False, "network": network}


def _server(row: Row, data: Json, source: str) -> Json:
    """In a disclosure the one who recorded it is the source; else the platform that was asked."""
    name = source if row is DISCLOSURE else (data.get("resource") or {}).get("platform") or source
    network = {"address": name, "type": "1"}
    return {"type": {"coding": [row.server]}, "who": _who(name), "requestor": False, "network": network}


def _user(row: Row, data: Json, person: Json) -> Json:
    who = _patient_reference(person["id"], None) if person["type"] == "patient" else _who(person["id"])
    user: Json = {"type": {"coding": [row.user]}, "who": who, "requestor": True}
    if roles := person.get("roles") or ([person["role"]] if "role" in person else []):
        user["role"] = [{"text": role} for role in roles]
    if purpose := data.get("purpose_of_use"):
        user["purposeOfUse"] = [{"coding": [coding(TERMS + "v3-ActReason", purpose)]}]
    return user


def _records(row: Row, event: Mapping[str, Any], known: Mapping[str, Any]) -> list[Json]:
    data: Json = event["data"]
    resource: Json = data.get("resource") or {}
    if row is QUERY:
        return [_query(data, resource, known)]
    if not row.profile:
        return []
    kind = str(resource.get("type") or "Resource")
    reference = next(iter(known.get("resources", ())), known.get("resource"))
    if reference:
        what: Json = {"reference": reference}
    else:  # sealed: the event is where it can be opened
        what = {"type": kind, "identifier": {"system": EVENTS, "value": event["id"]}}
    role = coding(_ROLE, "4", "Domain Resource")
    entity: Json = {"what": what, "type": coding(_ENTITY, "2", "System Object"), "role": role}
    if labels := resource.get("labels"):
        entity["securityLabel"] = [{"code": label} for label in labels]
    return [entity]


def _query(data: Json, resource: Json, known: Mapping[str, Any]) -> Json:
    """The raw request in base64, and no `what`."""
    kind = resource.get("type", "")
    raw = f"{kind}?{known['query']}" if "query" in known else str(kind)
    entity: Json = {
        "type": coding(_ENTITY, "2", "System Object"),
        "role": coding(_ROLE, "24", "Query"),
        "query": b64encode(raw.encode()).decode(),
    }
    return entity if "query" in known else {**entity, "description": "the parameters are sealed"}


def _patient(data: Json, known: Mapping[str, Any]) -> list[Json]:
    patient = data.get("patient")
    if not patient:
        return []
    what = _patient_reference(patient["pseudonym"], known.get("patient"))
    return [{"what": what, "type": coding(_ENTITY, "1", "Person"), "role": coding(_ROLE, "1", "Patient")}]


def _patient_reference(pseudonym: str, reference: str | None) -> Json:
    """`platform/Patient/x` as a reference; without it, as after shredding, a logical one with the pseudonym."""
    if reference and "/Patient/" in reference:
        return {"reference": "Patient/" + reference.rpartition("/")[2]}
    return {"type": "Patient", "identifier": {"system": PSEUDONYMS, "value": pseudonym}}


def _transaction(data: Json) -> list[Json]:
    request = (data.get("request") or {}).get("id")
    return [{"what": {"identifier": {"value": request}}, "type": _XREQUEST}] if request else []


def _who(name: str) -> Json:
    return {"identifier": {"value": name}}
