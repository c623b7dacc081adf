"""The feed of who treats whom, made from FHIR data by a command, and what detection makes of it."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from wardmesh_audit.__main__ import main
from wardmesh_audit.care_feed import CareFeed
from wardmesh_audit.care_shapes import BadCareData, Period, covers
from wardmesh_audit.detect import Detector
from wardmesh_audit.detect_people import read_entries
from wardmesh_audit.rule_cases import Moment, event_of, people_of
from wardmesh_audit.rules import load_rules

NOW = datetime.now(UTC)
RECENT, LONG_AGO = NOW - timedelta(days=10), NOW - timedelta(days=400)
ACTORS = {f"Practitioner/{name}": f"i|{name}" for name in ("ann", "bob", "cas", "dan")}


def encounter(patient: str, *people: str, start: datetime = RECENT, status: str = "finished") -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "status": status,
        "class": {"code": "AMB"},
        "subject": {"reference": patient},
        "participant": [{"individual": {"reference": who}} for who in people],
        "period": {"start": start.isoformat(), "end": (start + timedelta(hours=1)).isoformat()},
    }


def teams(*resources: dict[str, Any], tmp_path: Path, days: int = 30) -> dict[str, tuple[str, ...]]:
    file = tmp_path / "data.ndjson"
    file.write_text("\n".join(json.dumps(each) for each in resources) + "\n")
    feed = CareFeed(NOW.date(), days)
    feed.read(file)
    return {team.patients[0]: team.care_team for team in feed.teams("store", ACTORS)}


def test_whoever_takes_part_in_treatment_is_in_the_team_and_nobody_else(tmp_path: Path) -> None:
    found = teams(
        {"resourceType": "Patient", "id": "p1", "generalPractitioner": [{"reference": "Practitioner/ann"}]},
        {"resourceType": "Patient", "id": "p2"},
        encounter("Patient/p1", "https://ehr.example/fhir/Practitioner/bob/_history/2", "RelatedPerson/x"),
        encounter("Group/g", "Practitioner/cas"),
        {
            "resourceType": "CareTeam",
            "status": "active",
            "subject": {"reference": "Patient/p3"},
            "participant": [
                {"member": {"reference": "PractitionerRole/r1"}},
                {"member": {"reference": "Practitioner/dan"}, "period": {"end": LONG_AGO.date().isoformat()}},
                {"member": {"reference": "Organization/o"}},
            ],
        },
        {"resourceType": "PractitionerRole", "id": "r1", "practitioner": {"reference": "Practitioner/cas"}},
        {
            "resourceType": "Appointment",
            "status": "booked",
            "start": (NOW + timedelta(days=3)).isoformat(),
            "participant": [
                {"actor": {"reference": "Patient/p4"}, "status": "accepted"},
                {"actor": {"reference": "Practitioner/ann"}, "status": "accepted"},
                {"actor": {"reference": "Practitioner/bob"}, "status": "declined"},
            ],
        },
        {"resourceType": "Observation", "participant": "not looked at", "subject": 5},
        tmp_path=tmp_path,
    )
    assert found == {
        "store/Patient/p1": ("i|ann", "i|bob"),
        "store/Patient/p2": (),
        "store/Patient/p3": ("i|cas",),
        "store/Patient/p4": ("i|ann",),
    }


@pytest.mark.parametrize(
    ("resource", "treated"),
    [
        (encounter("Patient/p", "Practitioner/ann"), True),
        (encounter("Patient/p", "Practitioner/ann", start=LONG_AGO), False),
        (encounter("Patient/p", "Practitioner/ann", status="cancelled"), False),
        (encounter("Patient/p", "Practitioner/ann") | {"period": {}}, True),
        (encounter("Patient/p", "Practitioner/ann") | {"period": {"start": f"{LONG_AGO.year}"}}, True),
        (encounter("Patient/p", "Practitioner/ann") | {"period": {"end": f"{LONG_AGO:%Y-%m}"}}, False),
    ],
)
def test_what_was_called_off_or_is_long_over_is_no_treatment(
    resource: dict[str, Any], treated: bool, tmp_path: Path
) -> None:
    found = teams({"resourceType": "Patient", "id": "p"}, resource, tmp_path=tmp_path)
    assert found == {"store/Patient/p": ("i|ann",) if treated else ()}


def test_a_short_time_covers_all_that_it_may_mean() -> None:
    assert covers(Period(end="2026-02"), date(2026, 2, 28), date(2026, 3, 1))
    assert not covers(Period(end="2026-02"), date(2026, 3, 1), date(2026, 3, 2))
    assert covers(Period(start="2026"), date(2026, 1, 1), date(2026, 1, 1))
    for text in ("soon", "2026-13", "2026-02-30"):
        with pytest.raises(BadCareData):
            covers(Period(start=text), date(2026, 1, 1), date(2026, 1, 2))


def command(tmp_path: Path, *files: Path) -> int:
    actors = tmp_path / "actors.csv"
    actors.write_text("practitioner,actor\nann,i|ann\nPractitioner/bob,i|bob\n")
    arguments = ["--platform", "ward", "--actors", str(actors), "-o", str(tmp_path / "feed" / "care.json")]
    return main(["detect", "care-teams", *(str(file) for file in files), *arguments])


def test_the_command_writes_a_feed_by_which_detection_judges(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "visits.json"
    visit = encounter("urn:uuid:1", "urn:uuid:2", "Practitioner/nobody-knows")
    entries = [
        {"fullUrl": "urn:uuid:1", "resource": {"resourceType": "Patient", "id": "1"}},
        {"fullUrl": "urn:uuid:2", "resource": {"resourceType": "PractitionerRole", "id": "r"}},
        {"fullUrl": "urn:uuid:3", "resource": visit},
        {"fullUrl": "urn:uuid:4"},
    ]
    entries[1]["resource"] |= {"practitioner": {"reference": "Practitioner/ann"}}  # type: ignore[operator]
    bundle.write_text(json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}))
    (tmp_path / "feed").mkdir()
    assert command(tmp_path, bundle) == 0
    said = capsys.readouterr()
    assert said.out == "1 patients, 1 with a team, of 3 resources\n"
    assert said.err == "wardmesh-audit: 1 practitioners are not in the list of actors\n"
    assert (tmp_path / "feed" / "care.json").stat().st_mode & 0o77 == 0
    people = people_of(read_entries(tmp_path / "feed"))
    rules = [rule for rule in load_rules() if rule.name == "no_relationship"]
    raised = {
        actor: len(Detector(rules, people).see(event_of(moment, 0)))
        for actor in ("i|ann", "i|bob")
        for moment in [Moment(at=NOW, actor=actor, patient="ward/Patient/1", relationship="")]
    }
    assert raised == {"i|ann": 0, "i|bob": 1}


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("a.ndjson", '{"resourceType": "Patient", "id": "1"}\n{secret\n', "a.ndjson: line 2"),
        ("a.ndjson", '{"resourceType": "Encounter", "participant": "secret"}\n', "a.ndjson: line 1"),
        (
            "a.json",
            '{"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Patient", "id": 5}}]}',
            "entry 1",
        ),
        ("a.json", '{"resourceType": "Encounter", "period": {"start": "secret"}}', "a.json"),
        ("a.json", '{"secret": 1}', "a.json: no FHIR resource"),
        ("a.json", '{"resourceType": "Observation"}', "no patient"),
        ("a.json", "", "a.json"),
    ],
)
def test_what_is_no_fhir_data_is_named_and_not_quoted_and_nothing_is_written(
    name: str, text: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text)
    (tmp_path / "feed").mkdir()
    assert command(tmp_path, tmp_path / name) == 1
    error = capsys.readouterr().err
    assert place in error and "secret" not in error and "Traceback" not in error
    assert not list((tmp_path / "feed").iterdir())
    assert command(tmp_path, tmp_path / "missing.json") == 1 and "cannot be read" in capsys.readouterr().err
    (tmp_path / "feed").rmdir()
    (tmp_path / name).write_text('{"resourceType": "Patient", "id": "1"}\n')
    assert command(tmp_path, tmp_path / name) == 1 and "cannot be written" in capsys.readouterr().err
