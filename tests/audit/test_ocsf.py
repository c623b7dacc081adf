"""OCSF: every event of every class carries what class 6003 of version 1.7 requires, with ids that fit together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from wardmesh_audit.event_schemas import CLASSES
from wardmesh_audit.ocsf import api_activity, malformed

GOLDEN = Path(__file__).parent / "golden"
EVENTS = {name: json.loads((GOLDEN / "events" / f"{name}.json").read_text()) for name in CLASSES}
TEXT = {"type": "string", "minLength": 1}


def some_of(*names: str) -> list[dict[str, Any]]:
    return [{"required": [name]} for name in names]


# Requirements and constraints of API Activity, base event and their objects, written down from the 1.7 schema.
SCHEMA = {
    "type": "object",
    "required": [
        *("activity_id", "category_uid", "class_uid", "type_uid", "time", "severity_id", "metadata"),
        *("actor", "api", "src_endpoint"),
    ],
    "properties": {
        "activity_id": {"enum": [0, 1, 2, 3, 4, 99]},
        "category_uid": {"const": 6},
        "class_uid": {"const": 6003},
        "type_uid": {"enum": [600300, 600301, 600302, 600303, 600304, 600399]},
        "time": {"type": "integer", "minimum": 1_000_000_000_000},
        "severity_id": {"enum": [0, 1, 2, 3, 4, 5, 6, 99]},
        "status_id": {"enum": [0, 1, 2, 99]},
        "metadata": {
            "required": ["version", "product"],
            "properties": {
                "version": {"const": "1.7.0"},
                "product": {"required": ["vendor_name"], "properties": {"name": TEXT, "vendor_name": TEXT}},
                "sequence": {"type": "integer"},
            },
        },
        "actor": {
            "anyOf": some_of("process", "user", "invoked_by", "session", "app_name", "app_uid"),
            "properties": {
                "user": {
                    "anyOf": some_of("account", "name", "uid"),
                    "properties": {"uid": TEXT, "type_id": {"enum": [0, 1, 2, 3, 4, 99]}},
                }
            },
        },
        "api": {
            "required": ["operation"],
            "properties": {
                "operation": TEXT,
                "request": {"required": ["uid"]},
                "response": {"properties": {"code": {"type": "integer"}}},
                "service": {"anyOf": some_of("name", "uid")},
                "group": {"anyOf": some_of("name", "uid")},
            },
        },
        "src_endpoint": {"anyOf": some_of("ip", "uid", "name", "hostname", "svc_name"), "properties": {"ip": TEXT}},
        "resources": {"items": {"anyOf": some_of("name", "uid")}},
        "unmapped": {"type": "object"},
    },
}
VALIDATOR = jsonschema_rs.Draft202012Validator(SCHEMA)


def check(made: dict[str, Any]) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(made)] == []
    assert made["type_uid"] == made["class_uid"] * 100 + made["activity_id"]


@pytest.mark.requirement("AU-610")
@pytest.mark.parametrize("name", [*CLASSES])
def test_an_event_of_every_class_carries_all_required_attributes(name: str) -> None:
    check(api_activity(EVENTS[name], index=7))


@pytest.mark.requirement("AU-610")
def test_bytes_that_are_no_event_carry_them_as_well() -> None:
    check(malformed(7, 1_777_889_730_000, size=12))


@pytest.mark.requirement("AU-610")
@pytest.mark.parametrize("missing", SCHEMA["required"])
def test_the_check_would_notice_what_is_missing(missing: str) -> None:
    made = api_activity(EVENTS["access"])
    del made[missing]
    assert not VALIDATOR.is_valid(made)


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
