"""What an audit event says: from a Call and its Outcome to the event model, one draft per patient."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_common.contracts import Call, Outcome, Touched
from wardmesh_common.record_class import classify, purpose_of, sign_in_reached
from wardmesh_common.record_entries import parts_of
from wardmesh_common.record_patients import OPEN_CHARS, by_patient, emergency_patient
from wardmesh_common.streamed import UNKNOWN_SIZE, size_of
from wardmesh_common.vocabulary import Decision, Emergency, Principal

LEAF_LIMIT = 60_000  # tlog-tiles entries carry a 16-bit length
_QUERY_CHARS = 8_000
_OBLIGATIONS = 32


class Draft(Struct, kw_only=True):
    """One event before it has an id, a number and a seal."""

    event_class: str
    data: dict[str, Any]
    tenant: str
    traceparent: str = ""
    patient: str = ""  # whose key seals it; "" = the tenant key
    actor_patient: str = ""  # set when the actor is a patient: the open field then holds the pseudonym
    secrets: dict[str, Any] = {}
    follows: bool = False  # data left before it: however late it is recorded, nothing was held back

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whose keys this event needs."""
        names = [self.patient] if self.secrets or self.patient else []
        if self.actor_patient and self.actor_patient != self.patient:
            names.append(self.actor_patient)
        return tuple(names)


def draft_events(call: Call, outcome: Outcome | None, touched: Iterable[Touched], now: float) -> list[Draft]:
    """One draft per distinct patient, at least one, and for a bundle at least one per entry.

    `outcome` None means the intent before a write.
    """
    if outcome is not None and outcome.broken_after >= 0:
        return [_broken_off(call, outcome, now)]
    if not call.entries:
        return _drafts(call, outcome, tuple(touched), now)
    drafts: list[Draft] = []
    for part in parts_of(call, outcome, tuple(touched)):
        of_entry = _drafts(part.call, part.outcome, part.touched, now)
        for draft in of_entry:
            draft.data["resource"]["entry"] = part.position
        drafts += of_entry
    return drafts


def _drafts(call: Call, outcome: Outcome | None, touched: tuple[Touched, ...], now: float) -> list[Draft]:
    event_class, action, method = classify(call, outcome)
    principal = call.principal
    actor_patient = _own_record(call.platform, principal)
    shared: dict[str, Any] = {
        "action": action,
        "actor": _actor(call, principal, is_patient=bool(actor_patient)),
        "outcome": _outcome(call, outcome),
        "phase": "intent" if outcome is None else "outcome",
        "request": _request(call, outcome, method, now),
    }
    if outcome is not None and outcome.event:
        shared["event"] = _clip(outcome.event)
    if outcome is not None and outcome.facts:
        shared["facts"] = outcome.facts
    told = outcome.sealed if outcome is not None else {}
    if purpose := purpose_of(call, outcome, is_patient=bool(actor_patient)):
        shared["purpose_of_use"] = purpose
    if call.emergency is not None:
        shared["break_glass"] = _glass(call.emergency)
    if call.decision is not None:
        shared["policy"] = _policy(call.decision)
    related = {item.patient: item.relationship for item in reversed(touched) if item.relationship}
    resource, secrets = _resource(call, outcome), _secrets(call, principal if actor_patient else None)
    drafts: list[Draft] = []
    for patient, kind, count, references in by_patient(call, touched):
        data = {**shared, "resource": {**resource, "count": count, "type": _clip(kind)}}
        if patient in related:
            data["relationship"] = related[patient]
        drafts.append(
            Draft(
                event_class=event_class,
                data=data,
                tenant=principal.tenant if principal else "default",
                traceparent=call.traceparent,
                patient=patient,
                actor_patient=actor_patient,
                secrets={**secrets, **_about(call, patient, references), **told},
            )
        )
    return drafts


def _broken_off(call: Call, outcome: Outcome, now: float) -> Draft:
    """What follows the record of an answer that did not leave whole: one event, joined to it by the request's id.

    It names nobody and needs no key, so that nothing keeps it from being recorded.
    """
    draft, *_ = _drafts(call, outcome, (Touched(type=call.resource.type),), now)
    data = {**draft.data, "facts": {"broken_off_after": outcome.broken_after}}
    del data["request"]["bytes"]
    return msgspec.structs.replace(draft, data=data, actor_patient="", secrets={}, follows=True)


def status_draft(
    reason: str, service: str, facts: dict[str, Any] | None = None, *, event_class: str = "audit_status"
) -> Draft:
    """An event about the audit itself: start, stop, id conflict, keys. `facts` hold numbers and codes only."""
    data: dict[str, Any] = {
        "action": event_class,
        "actor": {"id": service, "type": "service"},
        "outcome": {"code": "success", "reason": reason},
        "phase": "outcome",
    }
    if facts:
        data["facts"] = facts
    return Draft(event_class=event_class, data=data, tenant="default")


def withheld(draft: Draft, corrects: str, reason: str) -> Draft:
    """The correction that says: the event before was recorded too late, its data did not leave."""
    data = {k: v for k, v in draft.data.items() if k != "enc"}
    data["outcome"] = {"code": "withheld", "http": 503, "reason": reason}
    if corrects:
        data["corrects"] = corrects
    return msgspec.structs.replace(draft, data=data, patient="", actor_patient="", secrets={})


def _own_record(platform: str, principal: Principal | None) -> str:
    """The patient reference that stands for the actor, when the actor is a patient and not a practitioner."""
    if principal is None or not principal.patient or principal.practitioner:
        return ""
    return f"{platform or 'self'}/Patient/{principal.patient}"


def _actor(call: Call, principal: Principal | None, *, is_patient: bool) -> dict[str, Any]:
    if principal is None or principal.anonymous:
        person: dict[str, Any] = {"id": "anonymous" if principal else "unidentified", "type": "unknown"}
    else:
        person = {
            "id": "" if is_patient else _clip(principal.id),  # a patient's pseudonym is filled in with the key
            "type": "patient" if is_patient else "practitioner",
        }
        if principal.roles:
            person["role"] = _clip(principal.roles[0])
            if len(principal.roles) > 1:
                person["roles"] = [_clip(role) for role in principal.roles[:16]]
        if principal.client_id:
            person["client_id"] = _clip(principal.client_id)
        if principal.session:
            person["session"] = _clip(principal.session)
    if call.caller.ip:
        person["ip"] = _clip(call.caller.ip)
    agent = principal.agent if principal else call.caller.agent
    if agent.id == "unknown-agent":
        return person
    return {
        "id": _clip(agent.id),
        "type": "ai_agent",
        "source": _clip(agent.source),
        "on_behalf_of": person,
    }


def _glass(emergency: Emergency) -> dict[str, Any]:
    return {"used": True, "id": emergency.id, "reason_code": _clip(emergency.reason_code)}


def _outcome(call: Call, outcome: Outcome | None) -> dict[str, Any]:
    if outcome is None:
        return {"code": "success", "reason": "intent"}
    reason = outcome.problem.code if outcome.problem else sign_in_reached(call, outcome)
    if outcome.status in (401, 403):
        code = "denied"
    else:
        code = "success" if outcome.status < 400 and outcome.problem is None else "error"
    return {"code": code, "http": outcome.status, "reason": reason}


def _request(call: Call, outcome: Outcome | None, method: str, now: float) -> dict[str, Any]:
    request: dict[str, Any] = {
        "deadline": instant(call.deadline),
        "face": call.face.value,
        "id": _clip(call.id),
        "interaction": call.interaction.value,
        "method": method,
        "route": _clip(call.tool),
    }
    if call.attempt:
        request["attempt"] = call.attempt
    if outcome is not None and (size := size_of(outcome.body, outcome.stream)) != UNKNOWN_SIZE:
        request["bytes"] = size
    if call.received_at:
        request["latency_ms"] = max(0, round((now - call.received_at) * 1000, 1))
        request["received"] = instant(call.received_at)
    return request


def _resource(call: Call, outcome: Outcome | None) -> dict[str, Any]:
    """What is the same for every patient; the type and how many come with each."""
    resource: dict[str, Any] = {"platform": _clip(call.platform)}
    if call.operation:
        resource["operation"] = _clip(call.operation)
    if call.resource.version:
        resource["version"] = _clip(call.resource.version)
    if outcome is not None and outcome.masked:
        resource["masked"] = outcome.masked
    if outcome is not None and outcome.withheld:
        resource["withheld"] = outcome.withheld
    return resource


def _policy(decision: Decision) -> dict[str, Any]:
    obligations = decision.obligations
    names = [f"{mask.action}:{mask.type}.{mask.path}" for mask in obligations.masks]
    if obligations.compartment:
        names.append("compartment")
    if obligations.max_entries:
        names.append(f"max_entries:{obligations.max_entries}")
    if obligations.max_bytes:
        names.append(f"max_bytes:{obligations.max_bytes}")
    policy: dict[str, Any] = {
        "decision": "allow" if decision.allowed else "deny",
        "decision_id": _clip(decision.id),
        "obligations": [_clip(name) for name in names[:_OBLIGATIONS]],
        "rule": _clip(decision.rule),
        "version": _clip(decision.policy_version),
    }
    if not decision.allowed:
        policy["reason"] = _clip(decision.reason)
    return policy


def _secrets(call: Call, actor: Principal | None) -> dict[str, Any]:
    """What is sealed with every patient of a call."""
    secrets: dict[str, Any] = {}
    if call.resource.id:
        secrets["resource"] = f"{call.resource.type}/{call.resource.id}"[:OPEN_CHARS]
    if call.query:
        secrets["query"] = call.query[:_QUERY_CHARS]
        if len(call.query) > _QUERY_CHARS:
            secrets["query_length"] = len(call.query)
    if actor is not None:
        secrets["actor"] = _clip(actor.id)
    return secrets


def _about(call: Call, patient: str, references: list[str]) -> dict[str, Any]:
    """What is sealed with one patient alone."""
    about: dict[str, Any] = {}
    if patient:
        about["patient"] = patient
    if references:
        about["resources"] = references
    if call.emergency is not None and patient == emergency_patient(call.platform, call.emergency):
        # Under this patient's key alone: it tells of nobody else, and goes when the key goes.
        about["break_glass_reason"] = call.emergency.reason
    return about


def instant(seconds: float) -> str:
    """RFC 3339 in UTC with microseconds; the date and time to the second are formatted once for a second."""
    micros = round(seconds * 1_000_000)
    whole, rest = divmod(micros, 1_000_000)
    return f"{_to_the_second(whole)}.{rest:06d}Z"


@functools.lru_cache(maxsize=256)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _clip(text: str) -> str:
    return text if len(text) <= OPEN_CHARS else text[:OPEN_CHARS]
