"""Puts rules to events: no input but events, people and what it remembers, so that a replay gives the same alerts."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct

from wardmesh_audit.derived import Derived, derive
from wardmesh_audit.detect_event import Seen
from wardmesh_audit.detect_people import Card, People
from wardmesh_audit.detect_state import Hour, State
from wardmesh_audit.rules import (
    AfterHours,
    AnyRule,
    Burst,
    Fields,
    FollowUp,
    Listed,
    Match,
    Patients,
    Standing,
    When,
)

_PERIODS = {
    "actor-hour": "%Y-%m-%dT%H",
    "actor-day": "%Y-%m-%d",
    "actor-patient-day": "%Y-%m-%d",
    "actor-patient-month": "%Y-%m",
}
_KINDS = 4096
COUNTED = frozenset({"access", "search", "write", "export", "disclosure", "break_glass"})


class Alert(Struct, frozen=True, kw_only=True):
    """One alert: the event that says so, and what the review queue shows."""

    event: Derived
    rule: str
    severity: str
    score: float
    about: Seen
    facts: dict[str, Any]
    title: str
    review: str  # kind of the review that it opens; "" when there is one already

    @property
    def id(self) -> uuid.UUID:
        return self.event.event_id


class Hit(Struct, frozen=True):
    """A rule that applies to an event, whether or not it raises an alert."""

    rule: AnyRule
    facts: dict[str, Any]


class Detector:
    def __init__(self, rules: Iterable[AnyRule], people: People, state: State | None = None) -> None:
        self._rules: list[AnyRule] = []
        self.people = people  # replaced when the directory changes
        self.state = state or State()
        self.touched: dict[tuple[str, datetime], Hour] = {}  # hours that changed since somebody saved them
        self._candidates: dict[tuple[Any, ...], tuple[AnyRule, ...]] = {}
        self.use(rules)

    def use(self, rules: Iterable[AnyRule]) -> None:
        """From the next event on; what is remembered stays."""
        self._rules = [rule for rule in rules if rule.enabled]
        self._candidates.clear()

    @property
    def follow_ups(self) -> list[FollowUp]:
        return [rule for rule in self._rules if isinstance(rule, FollowUp)]

    def see(self, event: Seen) -> list[Alert]:
        """The alerts that this event raises, in the order of the rules' names."""
        hits = self.hits(event)
        if not hits:
            return []
        extra = sum(hit.rule.score for hit in hits if hit.rule.score_only)
        also = [hit.rule.name for hit in hits if hit.rule.score_only]
        alerts: list[Alert] = []
        for hit in hits:
            group = _group(hit.rule, event)
            if hit.rule.score_only or group in self.state.raised:
                continue
            self.state.raised[group] = event.stored
            facts = {**hit.facts, "also": also} if also else hit.facts
            review = hit.rule.review if isinstance(hit.rule, Fields) else "alert"
            alerts.append(make_alert(hit.rule, event, facts, group, event.at, review=review, extra=extra))
        return alerts

    def hits(self, event: Seen) -> list[Hit]:
        """All rules that apply; takes the event into account for those that come."""
        self.state.move(event.stored)
        if event.phase == "intent" or not event.actor:
            return []
        hour = self._count(event)
        actor, patient = self.people.actor(event.tenant, event.actor), self.people.patient(event.handle)
        if not event.relationship and event.actor_type != "patient":  # no producer saw one
            event.relationship = self.people.relationship(event.tenant, event.actor, patient)
        found: list[Hit] = []
        for rule in self._rules_for(event, actor, patient):
            facts = self._facts(rule, event, actor, patient, hour)
            if facts is not None:
                found.append(Hit(rule, facts))
        self.state.last_seen[f"{event.tenant}\x1f{event.actor}"] = event.at
        return found

    def _rules_for(self, event: Seen, actor: Card | None, patient: Card | None) -> tuple[AnyRule, ...]:
        """The rules that may apply: nearly every event is like one before, and for most there are few."""
        card, about = actor is not None, patient is not None
        said = (event.type, event.outcome, event.reason, event.purpose, event.relationship, event.break_glass)
        kind = (*said, card, about)
        found = self._candidates.get(kind)
        if found is None:
            if len(self._candidates) >= _KINDS:  # these words come from producers
                self._candidates.clear()
            found = tuple(r for r in self._rules if _passes(r.when, event) and _answerable(r, card, about))
            self._candidates[kind] = found
        return found

    def _count(self, event: Seen) -> Hour | None:
        if event.type not in COUNTED or event.outcome != "success":
            return None
        hour = self.state.hour(event.actor, event.at)
        hour.events[event.log] = hour.events.get(event.log, 0) + 1
        if event.patient:
            hour.patients[event.patient] = event.log
        self.touched[event.actor, hour.start] = hour
        return hour

    def _facts(
        self, rule: AnyRule, event: Seen, actor: Card | None, patient: Card | None, hour: Hour | None
    ) -> dict[str, Any] | None:
        """What the alert says beside rule and event; None when the rule does not apply."""
        found: dict[str, Any] | None = None
        match rule:
            case Fields():
                found = {}
            case Listed() if patient and rule.list in patient.lists:
                found = {"list": rule.list}
            case Match():
                found = _in_common(rule, event, actor, patient)
            case Standing():
                found = self._standing(rule, event, actor)
            case AfterHours() if actor and actor.schedule:
                off = actor.schedule.minutes_off(event.at)
                found = {"minutes": off} if off > rule.grace_minutes else None
            case Patients() if hour and len(hour.patients) >= rule.threshold:
                found = {"patients": len(hour.patients)}
            case Burst():
                found = self._burst(rule, event)
            case _:  # FollowUp: time raises it, not an event
                pass
        return found

    def _standing(self, rule: Standing, event: Seen, actor: Card | None) -> dict[str, Any] | None:
        if actor and actor.status in rule.statuses and (actor.status_since is None or actor.status_since <= event.at):
            return {"status": actor.status}
        if rule.idle_days is None:
            return None
        seen = self.state.last_seen.get(f"{event.tenant}\x1f{event.actor}")
        known = [moment for moment in (seen, actor.last_active if actor else None) if moment is not None]
        days = (event.at - max(known)).days if known else 0
        return {"idle_days": days} if days >= rule.idle_days else None

    def _burst(self, rule: Burst, event: Seen) -> dict[str, Any] | None:
        """When it fires it begins to count again: a burst that goes on is said again, not with every event."""
        key = f"{rule.name}\x1f{event.tenant}\x1f{event.actor}"
        now = event.at.timestamp()
        times = [moment for moment in self.state.bursts.get(key, []) if moment > now - rule.seconds]
        times.append(now)
        full = len(times) >= rule.threshold
        self.state.bursts[key] = [] if full else times
        return {"events": len(times), "seconds": rule.seconds} if full else None


def overdue(rule: FollowUp, uses: Sequence[Seen], now: datetime) -> list[Alert]:
    """The alerts about uses of break-glass that nobody has reviewed in time: one for each, whenever it is asked."""
    wait = timedelta(hours=rule.hours)
    return [
        make_alert(rule, use, {"hours": rule.hours}, f"{rule.name}\x1f{use.event_id}", use.at + wait, review="")
        for use in uses
        if use.at + wait <= now
    ]


def make_alert(
    rule: AnyRule,
    event: Seen,
    facts: dict[str, Any],
    group: str,
    at: datetime,
    *,
    review: str = "alert",
    extra: float = 0.0,
) -> Alert:
    score = round(min(1.0, rule.score + extra), 3)
    said = {
        **facts,
        "about_actor": event.actor,
        "about_event": str(event.event_id),
        "about_index": f"{event.log}:{event.seq}",
        "rule": rule.name,
        "score": score,
        "severity": rule.severity,
        "title": rule.title,
    }
    data: dict[str, Any] = {
        "action": "alert",
        "actor": {"id": "audit", "type": "service"},
        "facts": said,
        "outcome": {"code": "success", "reason": "rule_fired"},
        "patient": {"pseudonym": event.patient} if event.patient else None,
        "phase": "outcome",
    }
    made = derive("alert", f"alert\x1f{group}", at, data, tenant=event.tenant)
    return Alert(
        event=made,
        rule=rule.name,
        severity=rule.severity,
        score=score,
        about=event,
        facts=facts,
        title=rule.title,
        review=review,
    )


def _answerable(rule: AnyRule, actor: bool, patient: bool) -> bool:
    """False for a rule that needs a card of the directory which is not there, and for one that time raises."""
    match rule:
        case Listed():
            return patient
        case Match():
            return actor and patient
        case AfterHours():
            return actor
        case _:
            return not isinstance(rule, FollowUp)


def _passes(when: When, event: Seen) -> bool:
    return (
        event.type in when.types
        and (not when.outcomes or event.outcome in when.outcomes)
        and (not when.reasons or event.reason in when.reasons)
        and (not when.purposes or event.purpose in when.purposes)
        and (not when.relationships or event.relationship in when.relationships)
        and (when.break_glass is None or event.break_glass == when.break_glass)
    )


def _in_common(rule: Match, event: Seen, actor: Card | None, patient: Card | None) -> dict[str, Any] | None:
    """Patients look at their own records; rules are about those who look at records of others."""
    if actor is None or patient is None or event.actor_type == "patient":
        return None
    # A rule that does not look for the person himself leaves him to the rule that does.
    if "person" not in rule.attributes and actor.marks.get("person", b"-") == patient.marks.get("person"):
        return None
    found = [name for name in rule.attributes if name in actor.marks and actor.marks[name] == patient.marks.get(name)]
    return {"in_common": found} if found else None


def _group(rule: AnyRule, event: Seen) -> str:
    """What one alert stands for; with the id of an alert made from it."""
    parts = [rule.name, event.tenant]
    if rule.per == "event":
        return "\x1f".join([*parts, str(event.log), str(event.event_id)])
    parts.append(event.actor)
    if rule.per in ("actor-patient-day", "actor-patient-month"):
        parts.append(event.patient or "-")
    return "\x1f".join([*parts, f"{event.at:{_PERIODS[rule.per]}}"])
