"""How good the rules are: a made-up month with planted incidents, and for each rule its precision and recall."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from wardmesh_audit.detect import Detector, overdue
from wardmesh_audit.detect_plants import Month, make_month
from wardmesh_audit.rule_cases import event_of, people_of
from wardmesh_audit.rules import FLOORS, SHIPPED, AnyRule, BadRules, FollowUp

Share = Annotated[float, Meta(ge=0, le=1)]


class Floor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    precision: Share
    recall: Share


class Floors(Floor, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of all rules together, of each rule that is named, and of each that is not (`every`)."""

    every: Floor
    rules: dict[str, Floor] = {}


class Score(Struct, frozen=True, kw_only=True):
    """`right` of `alerts` are about a planted incident of the rule; `found` of `planted` incidents were seen."""

    rule: str
    alerts: int
    right: int
    planted: int
    found: int

    @property
    def precision(self) -> float:
        return self.right / self.alerts if self.alerts else 1.0

    @property
    def recall(self) -> float:
        return self.found / self.planted if self.planted else 1.0

    def reaches(self, floor: Floor) -> bool:
        return self.precision >= floor.precision and self.recall >= floor.recall


class Evaluation(Struct, frozen=True, kw_only=True):
    events: int
    scores: list[Score]
    overall: Score

    def below(self, floors: Floors) -> list[str]:
        """The rules that are not good enough; `overall` for all together."""
        bad = [score.rule for score in self.scores if not score.reaches(floors.rules.get(score.rule, floors.every))]
        return bad if self.overall.reaches(floors) else [*bad, "overall"]


def load_floors(path: Path | None = None) -> Floors:
    """Raises BadRules."""
    path = path or SHIPPED / FLOORS
    try:
        return msgspec.json.decode(path.read_bytes(), type=Floors)
    except (OSError, msgspec.MsgspecError) as error:
        raise BadRules(f"{path.name}: {error}") from None


def evaluate(rules: list[AnyRule], seed: int, days: int) -> Evaluation:
    month = make_month(seed, days)
    raised = _raised(rules, month)
    scores: list[Score] = []
    for rule in rules:
        wanted = {n for n, name in enumerate(month.incidents) if name == rule.name}
        hits = [wanted & set(incidents) for incidents in raised[rule.name]]
        right = sum(1 for hit in hits if hit)
        found = len(set[int]().union(*hits))
        scores.append(Score(rule=rule.name, alerts=len(hits), right=right, planted=len(wanted), found=found))
    overall = Score(
        rule="overall",
        alerts=sum(score.alerts for score in scores),
        right=sum(score.right for score in scores),
        planted=len(month.incidents),
        found=sum(score.found for score in scores),
    )
    return Evaluation(events=len(month.steps), scores=scores, overall=overall)


def _raised(rules: list[AnyRule], month: Month) -> dict[str, list[tuple[int, ...]]]:
    """Per rule the incidents that each alert's event belongs to: none for ordinary work.

    The bytes of every event are read as in the stream. A rule that only adds to scores is judged by its hits.
    """
    raised: dict[str, list[tuple[int, ...]]] = defaultdict(list)
    people = people_of(month.people)
    detector = Detector(rules, people)
    silent = [rule for rule in rules if rule.score_only]
    scoring = Detector(silent, people)
    uses: dict[str, tuple[int, ...]] = {}
    waiting = []
    for number, step in enumerate(month.steps):
        event = event_of(step.moment, number)
        for alert in detector.see(event):
            raised[alert.rule].append(step.incidents)
        for hit in scoring.hits(event):
            raised[hit.rule.name].append(step.incidents)
        if event.break_glass and event.outcome != "denied" and not step.moment.reviewed:
            uses[str(event.event_id)] = step.incidents
            waiting.append(event)
    for rule in rules:
        if isinstance(rule, FollowUp) and rule.enabled:
            late = overdue(rule, waiting, month.end)
            raised[rule.name] += [uses[str(alert.about.event_id)] for alert in late]
    return raised
