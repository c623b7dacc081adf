"""Detection rules as data: what a rule file may say, the files that ship with the package and those of a deployment."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

SHIPPED: Final = Path(__file__).with_name("rule_files")
FLOORS: Final = "floors.json"
LARGEST: Final = 1024 * 1024  # bytes of one rule file

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Attribute = Literal["person", "family", "surname", "address", "employer"]
Severity = Literal["info", "low", "medium", "high", "critical"]
# What one alert stands for: later hits of the same actor (and patient) in the same hour, day or month add none.
Per = Literal["event", "actor-hour", "actor-day", "actor-patient-day", "actor-patient-month"]

ACCESS: Final = ("access", "search", "write", "export", "disclosure", "break_glass")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{1,39}")


class BadRules(Exception):
    """A rule file is not valid; names the file, and the place in it where that is known."""


class When(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events a rule looks at; an empty list lets everything pass."""

    types: tuple[str, ...] = ACCESS
    outcomes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()
    relationships: tuple[str, ...] = ()
    break_glass: bool | None = None


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What all rules have. `score_only` raises no alert: its score is added to alerts of the same event."""

    name: str
    title: str
    severity: Severity
    score: Share
    cases: list[dict[str, Any]]  # `rule_cases.Case`
    per: Per = "actor-patient-day"
    enabled: bool = True
    score_only: bool = False
    when: When = When()


class Fields(Rule, frozen=True, tag="fields"):
    """Every event that passes `when`."""

    review: Literal["alert", "break_glass"] = "alert"


class Listed(Rule, frozen=True, tag="listed"):
    """The patient is on a list of the directory."""

    list: str


class Match(Rule, frozen=True, tag="match"):
    """Actor and patient have one of these attributes in common."""

    attributes: tuple[Attribute, ...]


class Standing(Rule, frozen=True, tag="standing"):
    """The directory says that the actor is no longer active, or nothing was heard of him for `idle_days`."""

    statuses: tuple[str, ...] = ()
    idle_days: Count | None = None


class AfterHours(Rule, frozen=True, tag="after_hours"):
    """Outside the actor's schedule by more than the grace."""

    grace_minutes: Annotated[int, Meta(ge=0, le=720)] = 0


class Patients(Rule, frozen=True, tag="patients"):
    """So many distinct patients of one actor in one hour of the clock."""

    threshold: Count


class Burst(Rule, frozen=True, tag="burst"):
    """So many events of one actor within some seconds."""

    threshold: Count
    seconds: Positive


class FollowUp(Rule, frozen=True, tag="follow_up"):
    """A use of break-glass whose review is not closed after some hours."""

    hours: Positive


AnyRule = Fields | Listed | Match | Standing | AfterHours | Patients | Burst | FollowUp


def load_rules(override: str | Path = "") -> list[AnyRule]:
    """The shipped rules; a file of the same name in `override` replaces one, another adds one. Raises BadRules."""
    files = {path.name: path for path in SHIPPED.glob("*.json")}
    if override:
        folder = Path(override)
        if not folder.is_dir():
            raise BadRules("the directory of rules does not exist")
        files |= {path.name: path for path in folder.glob("*.json")}
    files.pop(FLOORS, None)
    rules = [_read(path) for _, path in sorted(files.items())]
    names = [rule.name for rule in rules]
    if len(names) != len(set(names)):
        raise BadRules("two rule files have the same name")
    return rules


def _read(path: Path) -> AnyRule:
    try:
        # What is no file could keep a reader for ever, and what is too large would be held whole.
        if not path.is_file() or path.stat().st_size > LARGEST:
            raise BadRules(f"{path.name}: not a file that can be read, or larger than {LARGEST} bytes")
        rule = msgspec.json.decode(path.read_bytes(), type=AnyRule)
    except (msgspec.MsgspecError, OSError, UnicodeDecodeError) as error:
        raise BadRules(f"{path.name}: {error}") from None
    if not _NAME.fullmatch(rule.name) or path.stem != rule.name:
        raise BadRules(f"{path.name}: the name of a rule is that of its file, in lower case")
    _sensible(path.name, rule)
    return rule


def _sensible(file: str, rule: AnyRule) -> None:
    """What types cannot say."""
    if "alert" in rule.when.types or not rule.when.types:
        raise BadRules(f"{file}: a rule names the types it looks at, and alerts are none of them")
    if isinstance(rule, Match) and not rule.attributes:
        raise BadRules(f"{file}: a match needs attributes")
    if isinstance(rule, Standing) and not rule.statuses and rule.idle_days is None:
        raise BadRules(f"{file}: give statuses or idle_days")
    if isinstance(rule, Patients) and rule.per != "actor-hour":
        raise BadRules(f"{file}: distinct patients are counted per actor-hour")
    fires = [case.get("fires") for case in rule.cases]
    if True not in fires or False not in fires:
        raise BadRules(f"{file}: a rule needs a case that fires and one that does not")
