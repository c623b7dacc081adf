"""OCSF: every event of every class is what the official schema, version 1.7.0, says of class 6003."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from audit.ocsf_schema import FACTS, complaints
from wardmesh_audit.event_schemas import CLASSES
from wardmesh_audit.ocsf import api_activity, malformed

GOLDEN = Path(__file__).parent / "golden"
EVENTS = {name: json.loads((GOLDEN / "events" / f"{name}.json").read_text()) for name in CLASSES}
REQUIRED = sorted(name for name, fact in FACTS["class"]["attributes"].items() if fact["requirement"] == "required")


def check(made: dict[str, Any]) -> None:
    assert complaints(made) == []


@pytest.mark.requirement("AU-610")
@pytest.mark.parametrize("name", [*CLASSES])
def test_an_event_of_every_class_carries_all_required_attributes(name: str) -> None:
    check(api_activity(EVENTS[name], index=7))


@pytest.mark.requirement("AU-610")
def test_bytes_that_are_no_event_carry_them_as_well() -> None:
    check(malformed(7, 1_777_889_730_000, size=12))


@pytest.mark.requirement("AU-610")
@pytest.mark.parametrize("missing", REQUIRED)
def test_the_check_would_notice_what_is_missing(missing: str) -> None:
    made = api_activity(EVENTS["access"])
    del made[missing]
    assert complaints(made)


@pytest.mark.requirement("AU-610")
@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("surprise", 1, "not in the schema"),
        ("actor.user", {"type_id": 1}, "at_least_one"),
        ("actor.user.type_id", 7, "enumeration"),
        ("activity_id", 2.5, "no number"),
        ("activity_id", 3, "type_uid"),
        ("class_uid", 6004, "enumeration"),
        ("metadata.version", "1.1.0", "another schema"),
        ("metadata.product", "Wardmesh", "no object"),
        ("resources", {"name": "store"}, "an array"),
        ("src_endpoint.ip", "somewhere", "no address"),
        ("api.operation", "", "no text"),
        ("api.response.code", "200", "no number"),
    ],
)
def test_the_check_would_notice_what_is_wrong(path: str, value: Any, words: str) -> None:
    made = api_activity(EVENTS["access"])
    *parents, name = path.split(".")
    place = made
    for parent in parents:
        place = place[parent]
    place[name] = value
    assert any(words in each for each in complaints(made)), complaints(made)


@pytest.mark.requirement("AU-610")
@pytest.mark.parametrize(
    ("name", "activity"), [("access", 2), ("write", 3), ("search", 99), ("retention", 4), ("alert", 1), ("login", 99)]
)
def test_actions_become_activities(name: str, activity: int) -> None:
    assert api_activity(EVENTS[name])["type_uid"] == 600300 + activity


def test_agent_person_outcome_and_place_are_where_a_siem_looks() -> None:
    made = api_activity(EVENTS["access"], log=2, index=41)
    assert made["actor"]["app_name"] == "assistant"
    assert made["actor"]["user"]["uid"] == "https://idp.example|doctor"
    assert made["actor"]["user"]["groups"] == [{"name": "Doctor"}]
    assert made["src_endpoint"] == {"ip": "192.0.2.10"}
    assert made["resources"] == [
        {"name": "store", "type": "Observation", "uid": "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "version": "3"}
    ]
    assert (made["metadata"]["log_name"], made["metadata"]["sequence"]) == ("audit/2", 41)
    assert made["time"] == 1_777_889_730_000
    denied = api_activity(EVENTS["login"])
    assert (denied["status"], denied["status_code"], denied["status_detail"]) == ("Failure", "401", "mfa_required")


def test_severity_follows_what_happened() -> None:
    severities = {name: api_activity(EVENTS[name])["severity"] for name in ("access", "login", "break_glass", "alert")}
    assert severities == {"access": "Informational", "login": "Low", "break_glass": "Medium", "alert": "High"}
