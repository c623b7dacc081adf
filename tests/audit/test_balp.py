"""BALP: a golden AuditEvent for every row of the mapping, and the rules a general validator does not know."""

from __future__ import annotations

import copy
import json
import os
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardmesh_audit.balp import audit_event, bundle
from wardmesh_audit.balp_profiles import PROFILES
from wardmesh_audit.balp_rules import faults
from wardmesh_audit.event_schemas import CLASSES

GOLDEN = Path(__file__).parent / "golden"
EVENTS = {name: json.loads((GOLDEN / "events" / f"{name}.json").read_text()) for name in CLASSES}
OPENED = {
    "patient": "store/Patient/p1",
    "resources": ["Observation/o1"],
    "query": "patient=p1&code=http://loinc.org|8480-6",
    "recipient": "City Health Office",
    "address": "1 Main Street",
}

Json = dict[str, Any]


def event(base: str, interaction: str, action: str, *, patient: bool = True, **data: Any) -> Json:
    made = copy.deepcopy(EVENTS[base])
    made["data"] |= {"action": action, "phase": "outcome", "outcome": {"code": "success", "http": 200, "reason": ""}}
    made["data"]["request"]["interaction"] = interaction
    made["data"] |= data
    if not patient:
        made["data"]["patient"] = None
    return made


# name of the golden file -> event, what may be opened of it, and the profile it must claim
CASES: dict[str, tuple[Json, Json, str]] = {
    "PatientRead": (event("access", "read", "R"), OPENED, "PatientRead"),
    "Read": (event("access", "read", "R", patient=False), {}, "Read"),
    "PatientQuery": (event("search", "search", "search"), OPENED, "PatientQuery"),
    "Query": (event("search", "search", "search", patient=False), {"query": "name=x"}, "Query"),
    "PatientCreate": (event("write", "create", "C"), OPENED, "PatientCreate"),
    "Create": (event("write", "create", "C", patient=False), {}, "Create"),
    "PatientUpdate": (event("write", "update", "U"), OPENED, "PatientUpdate"),
    "Update": (event("write", "patch", "U", patient=False), {}, "Update"),
    "PatientDelete": (event("write", "delete", "D"), OPENED, "PatientDelete"),
    "Delete": (event("write", "delete", "D", patient=False), {}, "Delete"),
    "PrivacyDisclosure.Source": (EVENTS["disclosure"], OPENED, "PrivacyDisclosure.Source"),
    "denied": (event("access", "read", "R", outcome={"code": "denied", "http": 403, "reason": "rule"}), {}, ""),
    "error": (event("access", "read", "R", outcome={"code": "error", "http": 502, "reason": "platform"}), {}, ""),
    "intent": (EVENTS["write"], {}, ""),
    "shredded": (event("access", "read", "R"), {}, "PatientRead"),
    "sealed query": (event("search", "search", "search"), {}, "PatientQuery"),
    "break glass": (EVENTS["break_glass"], OPENED, "PatientRead"),
    "login": (EVENTS["login"], {}, ""),
}


@pytest.mark.requirement("AU-608")
@pytest.mark.parametrize("name", CASES)
def test_every_row_of_the_mapping_equals_its_golden_file_and_keeps_the_rules(name: str) -> None:
    source, opened, profile = CASES[name]
    made = audit_event(source, opened)
    path = GOLDEN / "balp" / f"{name.replace(' ', '-')}.json"
    if os.environ.get("WARDMESH_WRITE_GOLDEN"):
        path.write_text(json.dumps(made, indent=1) + "\n")
    assert made == json.loads(path.read_text())
    assert faults(made) == []
    assert made.get("meta", {}).get("profile") == ([PROFILES + profile] if profile else None)


def agent(made: Json, code: str) -> Json:
    return next(each for each in made["agent"] if each["type"]["coding"][0]["code"] == code)


@pytest.mark.requirement("AU-608")
def test_the_roles_flip_between_read_and_query() -> None:
    read, query = (audit_event(*CASES[name][:2]) for name in ("PatientRead", "PatientQuery"))
    assert agent(read, "110152")["who"] == agent(query, "110153")["who"] == {"identifier": {"value": "assistant"}}
    assert agent(read, "110153")["who"] == agent(query, "110152")["who"] == {"identifier": {"value": "store"}}


@pytest.mark.requirement("AU-608")
def test_only_success_claims_a_profile_and_failures_say_so() -> None:
    outcomes = {name: audit_event(*CASES[name][:2]).get("outcome") for name in ("PatientRead", "denied", "error")}
    assert outcomes == {"PatientRead": "0", "denied": "4", "error": "8"}
    assert "outcome" not in audit_event(EVENTS["write"]), "an intent has none yet"


@pytest.mark.requirement("AU-608")
def test_after_shredding_the_patient_is_a_logical_reference_with_the_pseudonym() -> None:
    made = audit_event(*CASES["shredded"][:2])
    patient = next(each for each in made["entity"] if each.get("role", {}).get("code") == "1")
    pseudonym = EVENTS["access"]["data"]["patient"]["pseudonym"]
    assert patient["what"] == {
        "type": "Patient",
        "identifier": {"system": "urn:wardmesh:pseudonym", "value": pseudonym},
    }
    assert "Patient/p1" in json.dumps(audit_event(*CASES["PatientRead"][:2]))


def test_a_query_carries_the_raw_request_in_base64() -> None:
    made = audit_event(*CASES["PatientQuery"][:2])
    entity = next(each for each in made["entity"] if "query" in each)
    assert b64decode(entity["query"]).decode() == f"Observation?{OPENED['query']}"


MUTATIONS: list[tuple[str, Callable[[Json], object]]] = [
    ("PatientRead", lambda e: e.update(action="E")),
    ("PatientRead", lambda e: e.update(outcome="8")),
    ("PatientRead", lambda e: e["agent"][0]["type"]["coding"][0].update(code="110153")),
    ("PatientRead", lambda e: e["agent"][0].pop("network")),
    ("PatientRead", lambda e: e["agent"][1].pop("who")),
    ("PatientRead", lambda e: e["agent"][2].update(network={"address": "x", "type": "2"})),
    ("PatientRead", lambda e: e["agent"][2].update(requestor=False)),
    ("PatientRead", lambda e: e["entity"].pop(0)),
    ("PatientRead", lambda e: e["entity"].pop(1)),
    ("Read", lambda e: e["entity"].append(audit_event(EVENTS["access"])["entity"][1])),
    ("PatientQuery", lambda e: e["entity"][0].update(what={"reference": "x"})),
    ("PatientQuery", lambda e: e["entity"][0].pop("query")),
    ("PatientCreate", lambda e: e["agent"][2]["type"]["coding"][0].update(code="IRCP")),
    ("PatientDelete", lambda e: e["agent"][0].update(role=[{"text": "x"}])),
    ("PatientDelete", lambda e: e["agent"][1].update(purposeOfUse=[])),
    ("PrivacyDisclosure.Source", lambda e: e["source"].update(observer={"identifier": {"value": "x"}})),
    ("PrivacyDisclosure.Source", lambda e: e.update(subtype=[])),
    ("PatientRead", lambda e: e["meta"].update(profile=[PROFILES + "Unheard"])),
]


@pytest.mark.requirement("AU-608")
@pytest.mark.parametrize(("name", "mutate"), MUTATIONS)
def test_what_breaks_a_rule_is_noticed(name: str, mutate: Callable[[Json], object]) -> None:
    made = copy.deepcopy(audit_event(*CASES[name][:2]))
    mutate(made)
    assert faults(made)


@pytest.mark.parametrize("name", [*CLASSES])
def test_an_event_of_every_class_becomes_an_audit_event(name: str) -> None:
    made = audit_event(EVENTS[name])
    assert faults(made) == []
    assert {"type", "recorded", "agent", "source"} <= set(made)
    assert sum(each["requestor"] for each in made["agent"]) == 1


def test_a_bundle_may_be_sent_again() -> None:
    made = audit_event(EVENTS["access"])
    entry = bundle([made])["entry"][0]
    assert entry["request"] == {"method": "PUT", "url": f"AuditEvent/{made['id']}"}
