"""The faces share one function that builds a Call and submits it (AR-1): nothing else in the house does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOOR = ROOT / "services/gateway/src/wardmesh_gateway/calls.py"
# Makes the subject of a record for what happened without a call; the bus never sees it.
HAPPENING = ROOT / "libs/common/src/wardmesh_common/happening.py"
GATEWAY = sorted((ROOT / "services/gateway/src").rglob("*.py"))
EVERYTHING = sorted([*ROOT.glob("services/*/src/**/*.py"), *ROOT.glob("libs/*/src/**/*.py")])


def calls_in(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


@pytest.mark.requirement("AR-1")
def test_only_the_door_makes_a_call() -> None:
    makers = {
        path
        for path in EVERYTHING
        for call in calls_in(path)
        if isinstance(call.func, ast.Name) and call.func.id == "Call"
    }
    assert makers == {DOOR, HAPPENING}


@pytest.mark.requirement("AR-1")
def test_only_the_door_hands_a_call_to_the_bus() -> None:
    """Faces call `door.submit`; the only `bus.submit` stands in the door itself."""
    found: dict[str, set[str]] = {}
    for path in GATEWAY:
        for call in calls_in(path):
            if isinstance(call.func, ast.Attribute) and call.func.attr == "submit":
                found.setdefault(ast.unparse(call.func.value), set()).add(path.name)
    assert found.pop("self._bus") == {"calls.py"}
    families = {"healthlake_tools.py", "smedrec_tools.py"}
    assert found == {"self._door": {"rest.py", "fhir.py", "tool_door.py", "coverage_face.py", *families}}


@pytest.mark.requirement("AR-1", "AR-2")
def test_no_service_publishes_a_journey_subject_by_itself() -> None:
    """Stations hand on through the bus library; a subject of the path never appears in a publish of a service."""
    journey = {"IDENTIFY", "DECIDE", "PERFORM"}
    publishers = {"publish", "lean_publish", "request", "tell", "ask"}
    wrong = [
        f"{path.relative_to(ROOT)}:{call.lineno}"
        for path in ROOT.glob("services/*/src/**/*.py")
        for call in calls_in(path)
        if isinstance(call.func, ast.Attribute) and call.func.attr in publishers
        for argument in call.args[:1]
        if any(isinstance(node, ast.Name) and node.id in journey for node in ast.walk(argument))
    ]
    assert not wrong
