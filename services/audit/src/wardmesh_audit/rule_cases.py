"""The cases kept beside each rule: small histories on which it has to fire, or must not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_audit.derived import derive
from wardmesh_audit.detect import Detector, overdue
from wardmesh_audit.detect_event import Seen, seen
from wardmesh_audit.detect_people import Entry, People
from wardmesh_audit.rules import AnyRule, BadRules, FollowUp
from wardmesh_audit.subject_keys import handle_of

_KEY = bytes(32)  # of histories that are no secret
_MOST = 20_000


class Moment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One event, or `times` of them; `patients` gives each of them another patient."""

    at: datetime
    actor: str = "actor"
    actor_type: str = "practitioner"
    patient: str = ""
    type: str = "access"
    phase: str = "outcome"
    outcome: str = "success"
    reason: str = ""
    purpose: str = "TREAT"
    relationship: str = "treating"
    break_glass: bool = False
    times: int = 1
    every_seconds: float = 1.0
    patients: bool = False
    reviewed: bool = False  # somebody has closed the review of it


class Case(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    fires: bool
    events: list[Moment]
    people: list[Entry] = []
    hours_later: float = 0.0  # when it is looked for what is overdue, counted from the last event


class Outcome(Struct, frozen=True):
    rule: str
    case: str
    expected: bool
    fired: int

    @property
    def good(self) -> bool:
        return (self.fired > 0) == self.expected


def cases_of(rule: AnyRule) -> list[Case]:
    """Raises BadRules."""
    try:
        cases = msgspec.convert(rule.cases, list[Case])
    except msgspec.ValidationError as error:
        raise BadRules(f"{rule.name}: {error}") from None
    if any(sum(moment.times for moment in case.events) > _MOST or not case.events for case in cases):
        raise BadRules(f"{rule.name}: a case has 1 to {_MOST} events")
    return cases


def run_cases(rule: AnyRule) -> list[Outcome]:
    """What the rule alone does on each of its cases."""
    return [Outcome(rule.name, case.name, case.fires, _fired(rule, case)) for case in cases_of(rule)]


def people_of(entries: list[Entry]) -> People:
    return People(_KEY, _KEY, entries)


def pseudonym_of(reference: str) -> str:
    return hashlib.sha256(reference.encode()).hexdigest()[:32]


def event_of(moment: Moment, seq: int) -> Seen:
    """Through the bytes, as it would come out of the stream."""
    data: dict[str, Any] = {
        "action": "R",
        "actor": {"id": moment.actor, "type": moment.actor_type},
        "outcome": {"code": moment.outcome, "reason": moment.reason},
        "phase": moment.phase,
        "purpose_of_use": moment.purpose,
        "relationship": moment.relationship,
        "patient": {"pseudonym": pseudonym_of(moment.patient)} if moment.patient else None,
    }
    if moment.break_glass:
        data["break_glass"] = {"used": True}
    made = derive(moment.type, f"{seq}", moment.at, data)
    event = seen(0, seq, made.leaf, moment.at)
    assert event is not None
    if moment.patient:
        event.handle = handle_of(_KEY, event.tenant, moment.patient)
    return event


def _fired(rule: AnyRule, case: Case) -> int:
    """Alerts, or hits of a rule that only adds to the score."""
    events = [event_of(moment, seq) for seq, moment in enumerate(_moments(case.events))]
    if isinstance(rule, FollowUp):
        reviewed = [moment.reviewed for moment in _moments(case.events)]
        uses = [event for event, done in zip(events, reviewed, strict=True) if event.break_glass and not done]
        return len(overdue(rule, uses, events[-1].at + timedelta(hours=case.hours_later)))
    detector = Detector([msgspec.structs.replace(rule, enabled=True)], people_of(case.people))
    if rule.score_only:
        return sum(len(detector.hits(event)) for event in events)
    return sum(len(detector.see(event)) for event in events)


def _moments(moments: list[Moment]) -> Iterator[Moment]:
    for moment in moments:
        for n in range(moment.times):
            patient = f"{moment.patient}{n}" if moment.patients else moment.patient
            at = moment.at + timedelta(seconds=n * moment.every_seconds)
            yield msgspec.structs.replace(moment, times=1, at=at, patient=patient)
