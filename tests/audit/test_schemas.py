"""Event schemas: what is committed is what the code makes, every event is valid, and only additions may come."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from audit_world import leaves_of, make_call, make_outcome
from wardmesh_audit.additive import breaking_changes, released
from wardmesh_audit.contract import contract
from wardmesh_audit.event_schemas import CLASSES, MALFORMED, SCHEMAS, all_schemas, as_file, undocumented
from wardmesh_audit.projection import project
from wardmesh_common.leaf import Draft, draft_events, status_draft, withheld
from wardmesh_common.stamp import Stamp
from wardmesh_common.vocabulary import Interaction

GOLDEN = Path(__file__).parent / "golden" / "events"
RELEASED = Path(__file__).parents[2] / "services" / "audit" / "released"
ALL = all_schemas()


def faults(event: dict[str, Any], name: str) -> list[str]:
    schema = ALL[name]
    validator = jsonschema_rs.Draft202012Validator(schema)
    return [error.message for error in validator.iter_errors(event)] + undocumented(event, schema)


def golden(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.mark.requirement("AU-603")
def test_the_committed_schemas_are_those_the_code_makes() -> None:
    assert {path.name: path.read_text() for path in SCHEMAS.iterdir()} == {
        name: as_file(schema) for name, schema in ALL.items()
    }, "run: python -m wardmesh_audit.contract docs docs"


@pytest.mark.requirement("AU-102")
@pytest.mark.parametrize("name", [*CLASSES, MALFORMED])
def test_there_is_a_golden_event_of_every_class_and_it_is_valid(name: str) -> None:
    event = golden(name)
    assert faults(event, f"{name}.v1.json") == []
    if name != MALFORMED:
        leaf = json.dumps(event, sort_keys=True, separators=(",", ":")).encode()
        assert project(leaf)[3] == name


@pytest.mark.requirement("AU-102")
def test_every_event_that_a_station_drafts_is_valid() -> None:
    stamp = Stamp("test", "test-0001")
    drafts: list[Draft] = [status_draft("started", "test", {"n": 1})]
    for interaction in Interaction:
        call = make_call(interaction=interaction)
        for outcome in (None, make_outcome("p1", "p2"), make_outcome(status=403)):
            drafts += draft_events(call, outcome, outcome.touched if outcome else (), 0.0)
    drafts += [withheld(drafts[1], "0196a1b2-c3d4-7e5f-8a9b-000000000001", "audit_unavailable")]
    for draft in drafts:
        event = json.loads(stamp.leaf(draft, {})[0])
        assert faults(event, event["dataschema"].removeprefix("schemas/")) == []
    assert all(faults(json.loads(leaf), "audit_status.v1.json") == [] for leaf in leaves_of(2))


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e["data"].pop("actor"),
        lambda e: e["data"].update(surname="x"),
        lambda e: e["data"]["resource"].update(id="p1"),
        lambda e: e["data"]["patient"].update(pseudonym="Patient/p1"),
        lambda e: e["data"]["outcome"].update(code="fine"),
        lambda e: e.update(time="2026-05-04T10:15:30Z"),
        lambda e: e.update(subject="p1"),
        lambda e: e.pop("tenant"),
    ],
)
def test_an_event_that_is_not_as_documented_is_a_fault(change: Callable[[dict[str, Any]], None]) -> None:
    event = golden("access")
    change(event)
    assert faults(event, "access.v1.json")


@pytest.mark.requirement("AU-603")
def test_the_contract_only_adds_to_what_was_released() -> None:
    versions = released(RELEASED)
    assert versions, "there is a released contract to compare with"
    for version, old in versions.items():
        assert breaking_changes(old, contract()) == [], f"not an addition to {version}: make a new major type"


ACCESS = ("schemas", "access.v1.json", "properties")
MUTATIONS: list[Callable[[dict[str, Any]], None]] = [
    lambda c: c["schemas"].pop("login.v1.json"),
    lambda c: at(c, ACCESS).pop("tenant"),
    lambda c: at(c, ACCESS, "data", "properties").pop("enc"),
    lambda c: at(c, ACCESS, "data", "properties", "resource", "properties", "count").update(type="string"),
    lambda c: at(c, ACCESS, "data", "properties", "outcome", "properties", "code")["enum"].remove("denied"),
    lambda c: at(c, ACCESS, "data")["required"].append("relationship"),
    lambda c: at(c, ACCESS, "data")["required"].remove("actor"),
    lambda c: at(c, ACCESS, "data").update(additionalProperties=False),
    lambda c: at(c, ACCESS, "id").update(pattern="x"),
    lambda c: at(c, ACCESS, "source").update(maxLength=5),
    lambda c: c["channels"].pop("audit.checkpoint.{log}"),
    lambda c: at(c, ("channels", "audit.v1.{log}.{class}.{action}.{purpose}", "headers")).pop("Audit-Log-Index"),
]


def at(tree: Any, *path: Any) -> Any:
    for part in path:
        tree = at(tree, *part) if isinstance(part, tuple) else tree[part]
    return tree


@pytest.mark.requirement("AU-603")
@pytest.mark.parametrize("mutate", MUTATIONS)
def test_anything_but_an_addition_is_refused(mutate: Callable[[dict[str, Any]], None]) -> None:
    changed = copy.deepcopy(contract())
    mutate(changed)
    assert breaking_changes(contract(), changed)


def test_additions_are_allowed() -> None:
    changed = copy.deepcopy(contract())
    at(changed, ACCESS, "data", "properties")["ward"] = {"type": "string"}
    at(changed, ACCESS, "data", "properties", "outcome", "properties", "code")["enum"].append("partial")
    changed["schemas"]["access.v2.json"] = {"type": "object"}
    changed["channels"]["audit.v2"] = {}
    at(changed, ACCESS, "id")["description"] = "other words"
    assert breaking_changes(contract(), changed) == []
