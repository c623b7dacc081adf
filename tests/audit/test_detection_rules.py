"""Rules as data: their own cases, what a bad file is told, the directory, and how good they are on a made-up month."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from wardmesh_audit.__main__ import main
from wardmesh_audit.detect import Detector
from wardmesh_audit.detect_evaluate import evaluate
from wardmesh_audit.detect_month import START
from wardmesh_audit.detect_people import BadDirectory, Entry, People, read_entries
from wardmesh_audit.detect_plants import EACH, make_month
from wardmesh_audit.detect_schedule import BadSchedule, parse_schedule
from wardmesh_audit.detect_state import BadState, decode, encode
from wardmesh_audit.rule_cases import Moment, Outcome, event_of, people_of, run_cases
from wardmesh_audit.rules import SHIPPED, BadRules, load_rules

OUTCOMES = [outcome for rule in load_rules() for outcome in run_cases(rule)]


@pytest.mark.requirement("AU-705")
@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: f"{outcome.rule}: {outcome.case}")
def test_every_rule_fires_on_its_cases_and_on_no_others(outcome: Outcome) -> None:
    assert outcome.good


def test_every_rule_of_the_guide_is_there_with_its_default() -> None:
    rules: dict[str, Any] = {rule.name: rule for rule in load_rules()}
    assert (rules["bulk_reading"].threshold, rules["denied_burst"].threshold, rules["denied_burst"].seconds) == (
        50,
        20,
        300,
    )
    assert rules["break_glass_without_follow_up"].hours == 72
    assert rules["after_hours"].score_only
    assert {"vip", "self", "family", "same_surname_or_address", "coworker", "no_relationship", "inactive_user"} <= set(
        rules
    )


@pytest.mark.requirement("AU-705")
def test_a_detector_that_was_saved_and_loaded_goes_on_as_if_nothing_was() -> None:
    """The same month in one go and with a restart after every 997 events, in which the state went through bytes."""
    month = make_month(7, 10)
    rules, people = load_rules(), people_of(month.people)
    events = [event_of(step.moment, number) for number, step in enumerate(month.steps)]
    whole = Detector(rules, people)
    once = [alert.event for event in events for alert in whole.see(event)]
    parts: list[Any] = []
    detector = Detector(rules, people)
    for number, event in enumerate(events):
        if number % 997 == 0:
            detector = Detector(rules, people, decode(encode(detector.state)))
        parts += [alert.event for alert in detector.see(event)]
    assert parts == once
    assert len({event.event_id for event in once}) == len(once) > EACH
    with pytest.raises(BadState):
        decode(b"no state")


def test_the_evaluation_prints_each_rule_and_fails_below_a_floor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["detect", "evaluate", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {score["rule"] for score in found["scores"]} == {*(rule.name for rule in load_rules()), "overall"}
    assert all(score["planted"] >= EACH for score in found["scores"])
    assert found["below"] == []
    floors = json.loads((SHIPPED / "floors.json").read_text())
    floors["rules"]["coworker"]["precision"] = 0.99
    (tmp_path / "floors.json").write_text(json.dumps(floors))
    assert main(["detect", "evaluate", "--floors", str(tmp_path / "floors.json")]) == 1
    assert "BELOW THE FLOOR" in capsys.readouterr().out


def test_a_rule_that_is_blind_is_found_out_by_the_evaluation() -> None:
    """The evaluation can fail: with a threshold that nobody reaches the planted incidents stay unseen."""
    rules = [rule for rule in load_rules() if rule.name == "bulk_reading"]
    seeing = evaluate(rules, 3, 14).scores[0]
    assert (seeing.recall, seeing.planted) == (1.0, EACH)
    path = SHIPPED / "bulk_reading.json"
    blind = json.loads(path.read_text()) | {"threshold": 5000}
    from_data = type(rules[0])(**{k: v for k, v in blind.items() if k not in ("kind", "when")}, when=rules[0].when)
    assert evaluate([from_data], 3, 14).scores[0].recall == 0.0
    assert [outcome.good for outcome in run_cases(from_data)].count(False) == 1


def test_a_deployment_replaces_and_adds_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = json.loads((SHIPPED / "denied_burst.json").read_text())
    own["threshold"] = 5
    own["cases"] = [
        {"name": "five", "fires": True, "events": [{"at": "2026-03-03T10:00:00Z", "outcome": "denied", "times": 5}]},
        {"name": "four", "fires": False, "events": [{"at": "2026-03-03T10:00:00Z", "outcome": "denied", "times": 4}]},
    ]
    (tmp_path / "denied_burst.json").write_text(json.dumps(own))
    (tmp_path / "research_list.json").write_text(
        (SHIPPED / "vip.json").read_text().replace('"name": "vip"', '"name": "research_list"')
    )
    names = [rule.name for rule in load_rules(tmp_path)]
    assert names.count("denied_burst") == 1 and "research_list" in names
    monkeypatch.setenv("WARDMESH_AUDIT_RULES_DIR", str(tmp_path))
    assert main(["detect", "test"]) == 0
    assert "five" in capsys.readouterr().out
    own["cases"][0]["fires"], own["cases"][1]["fires"] = False, True
    (tmp_path / "denied_burst.json").write_text(json.dumps(own))
    assert main(["detect", "test"]) == 1
    assert capsys.readouterr().out.count("FAIL") == 2


BAD: list[dict[str, Any]] = [
    {"kind": "nothing"},
    {"threshold": 0},
    {"threshold": "many"},
    {"surprise": 1},
    {"name": "other"},
    {"when": {"types": ["alert"]}},
    {"cases": []},
    {"score": 2},
]


@pytest.mark.parametrize("change", BAD, ids=str)
def test_a_bad_rule_file_is_named(change: dict[str, Any], tmp_path: Path) -> None:
    rule = json.loads((SHIPPED / "denied_burst.json").read_text()) | change
    (tmp_path / "denied_burst.json").write_text(json.dumps(rule))
    with pytest.raises(BadRules, match=r"denied_burst\.json"):
        load_rules(tmp_path)


def test_a_case_that_is_none_and_a_directory_that_is_none_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = json.loads((SHIPPED / "vip.json").read_text())
    rule["cases"][0]["events"][0]["at"] = "yesterday"
    (tmp_path / "vip.json").write_text(json.dumps(rule))
    for folder, word in ((tmp_path, "vip"), (tmp_path / "none", "does not exist")):
        monkeypatch.setenv("WARDMESH_AUDIT_RULES_DIR", str(folder))
        assert main(["detect", "test"]) == 78
        error = capsys.readouterr().err
        assert word in error and "Traceback" not in error


def test_feed_files_are_read_and_only_hashes_are_kept(tmp_path: Path) -> None:
    (tmp_path / "staff.csv").write_text("actor,surname,schedule,lists\ni|a,Éxample,mon-fri 07:00-19:00,\n")
    (tmp_path / "patients.json").write_text(json.dumps([{"patients": ["s/Patient/1"], "surname": "example"}]))
    entries = read_entries(tmp_path)
    people = People(b"k" * 32, b"h" * 32, entries)
    actor = people.actor("default", "i|a")
    assert actor is not None and people.actor("default", "i|b") is None and people.actor("other", "i|a") is None
    assert "xample" not in repr(vars(people)).lower() and "i|a" not in repr(vars(people))
    other = People(b"K" * 32, b"h" * 32, entries).actor("default", "i|a")
    assert other is not None and actor.marks["surname"] != other.marks["surname"]


@pytest.mark.parametrize(
    ("file", "text", "place"),
    [
        ("a.csv", "actor,nonsense\nsecret,1\n", "person 1"),
        ("a.json", '[{"actor": "a"}, {"actor": 5, "surname": "secret"}]', "person 2"),
        ("a.json", '[{"actor": "a", "schedule": "secret"}]', "person 1"),
        ("a.json", '[{"surname": "secret"}]', "person 1"),
        ("a.json", "{secret", "cannot be read"),
        ("a.json", '{"secret": 1}', "a list"),
    ],
)
def test_a_bad_feed_file_is_named_and_not_quoted(file: str, text: str, place: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(BadDirectory, match=place) as raised:
        read_entries(tmp_path)
    assert "secret" not in str(raised.value)


def test_schedules_know_nights_zones_and_the_turn_of_the_week() -> None:
    nights = parse_schedule("fri-mon 20:00-06:00", "UTC")
    sunday = START - timedelta(days=1)
    assert nights.minutes_off(sunday.replace(hour=23)) == 0
    assert nights.minutes_off(datetime(2026, 3, 3, 5, tzinfo=UTC)) == 0  # the night that began on Monday
    assert nights.minutes_off(datetime(2026, 3, 4, 5, tzinfo=UTC)) > 600
    assert parse_schedule("mon 08:00-09:00", "Europe/Berlin").minutes_off(START.replace(hour=7, minute=30)) == 0
    for text, zone in (
        ("mon 8-9", "UTC"),
        ("xyz 08:00-09:00", "UTC"),
        ("mon 25:00-26:00", "UTC"),
        ("mon 08:00-09:00", "X"),
    ):
        with pytest.raises(BadSchedule):
            parse_schedule(text, zone)


def test_hours_alone_raise_nothing_but_make_another_alert_worse() -> None:
    people = people_of(
        [Entry(actor="actor", schedule="mon-fri 07:00-19:00"), Entry(patients=("ward/Patient/1",), lists=("vip",))]
    )
    scores: list[float] = []
    for hour in (10, 3):
        at = START.replace(hour=hour)
        event = event_of(Moment(at=at, patient="ward/Patient/1"), 0)
        (alert,) = Detector(load_rules(), people).see(event)
        scores.append(alert.score)
    assert scores[1] > scores[0]
