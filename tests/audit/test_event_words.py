"""Ledger events in the words of FG-19 and SM-8: pure functions over what the recorder writes."""

# ruff: noqa: E501 - tables of cases read better in one line

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import wardmesh_audit
from wardmesh_audit.fhir_audit import line_of
from wardmesh_audit.smedrec_records import SmedrecRecords
from wardmesh_common.contracts import Call, Caller, Outcome, Touched
from wardmesh_common.errors import Problem
from wardmesh_common.happening import happening
from wardmesh_common.leaf import draft_events, instant
from wardmesh_common.vocabulary import Agent, Decision, Face, Interaction, Principal, Resource

REPOSITORY = Path(__file__).resolve().parents[2]
NOW = time.time()
DECISION = Decision(id="d", allowed=True, reason="allowed", policy_version="1", covers="", expires=NOW + 9)
WHO = Principal(id="issuer/doctor", roles=("practitioner",), session="0123456789abcdef0123456789abcdef")
GIVEN = [
    "auth.start",
    "auth.callback",
    "auth.success",
    "auth.failure",
    "auth.revoke",
    "token.refresh",
    "token.refresh_failure",
    "token.expired",
    "session.create",
    "session.destroy",
    "session.cleanup",
    "security.invalid_state",
    "security.invalid_token",
    "security.rate_limit",
    "security.csrf_violation",
    "security.session_mismatch",
    "security.scope_violation",
    "coverage.check",
    "coverage.questionnaire_fetch",
    "coverage.platform_rules_fetch",
    "error.resource_access",
    "error.coverage",
    "error.validation",
    "error.platform",
]


def call_of(tool: str, interaction: Interaction, **more: Any) -> Call:
    fields: dict[str, Any] = {"resource": Resource(type="Patient", id="p1"), "principal": WHO, **more}
    return Call(id="c" * 32, reply_to="", face=Face.MCP, tool=tool, interaction=interaction, performer="fhir", platform="store", deadline=NOW + 9, received_at=NOW - 1, caller=Caller(ip="192.0.2.1"), **fields)  # fmt: skip


def events_of(call: Call, outcome: Outcome | None) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What the ledger holds, and what is sealed in it."""
    touched = outcome.touched if outcome else ()
    return [
        ({"id": "e1", "time": instant(NOW), "type": f"org.wardmesh.audit.{draft.event_class}.v1", "data": draft.data}, draft.secrets)
        for draft in draft_events(call, outcome, touched, NOW)
    ]  # fmt: skip


@pytest.mark.requirement("FG-19")
@pytest.mark.parametrize("name", GIVEN)
def test_an_event_that_a_service_names_keeps_its_name_and_somebody_names_it(name: str) -> None:
    call = happening(name, performer="auth", interaction=Interaction.OPERATION, face=Face.REST, caller=Caller())
    good = name.rpartition(".")[2] not in ("failure", "refresh_failure") and not name.startswith(("error", "security"))
    problem = None if good else Problem(code="refused", status=401, detail="")
    ((event, sealed),) = events_of(call, Outcome(status=200 if good else 401, problem=problem, event=name))
    line = line_of(event, sealed)
    assert line is not None
    assert (line["event"], line["success"], line["logger"]) == (name, good, "fhir.audit")
    sources = [path for part in ("services", "libs") for path in (REPOSITORY / part).glob("*/src/**/*.py")]
    words = Path(wardmesh_audit.__file__).parent
    assert any(f'"{name}"' in path.read_text() for path in sources if words not in path.parents), "nobody records this"


@pytest.mark.requirement("FG-19")
@pytest.mark.parametrize(
    ("interaction", "name"),
    [
        (Interaction.READ, "resource.read"),
        (Interaction.SEARCH, "resource.search"),
        (Interaction.CREATE, "resource.create"),
        (Interaction.UPDATE, "resource.update"),
        (Interaction.PATCH, "resource.update"),
        (Interaction.DELETE, "resource.delete"),
        (Interaction.OPERATION, "resource.operation"),
    ],
)
def test_what_was_done_with_resources_has_its_names_and_all_fields(interaction: Interaction, name: str) -> None:
    call = call_of("read", interaction)
    call.principal = Principal(id="issuer/doctor", session=WHO.session, agent=Agent(id="cursor-agent-v1.0.0"))
    ((event, sealed),) = events_of(call, Outcome(status=200, touched=(Touched(patient="store/Patient/p1", type="Patient", ids=("p1",)),)))  # fmt: skip
    line = line_of(event, sealed)
    assert line is not None
    assert (line["event"], line["success"], line["session_id"]) == (name, True, "0123456789abcdef")
    assert (line["platform_id"], line["resource_type"], line["resource_id"]) == ("store", "Patient", "p1")
    assert (line["user_id"], line["error"]) == ("issuer/doctor", None)
    assert line["details"]["agent"] == "cursor-agent-v1.0.0"
    closed = line_of(event)
    assert closed is not None
    assert closed["resource_id"] is None, "what is sealed stays so"


@pytest.mark.requirement("FG-19")
@pytest.mark.parametrize(
    ("status", "name"),
    [(400, "error.validation"), (422, "error.validation"), (401, "error.resource_access"), (403, "error.resource_access"), (404, "error.resource_access"), (503, "error.platform"), (504, "error.platform")],
)  # fmt: skip
def test_what_failed_is_an_error_with_its_code(status: int, name: str) -> None:
    problem = Problem(code="some_code", status=status, detail="")
    ((event, sealed),) = events_of(call_of("read", Interaction.READ), Outcome(status=status, problem=problem))
    line = line_of(event, sealed)
    assert line is not None
    assert (line["event"], line["success"], line["error"]) == (name, False, "some_code")


def test_intents_and_the_ledgers_own_events_are_no_lines() -> None:
    ((event, sealed),) = events_of(call_of("create", Interaction.CREATE), None)
    assert line_of(event, sealed) is None
    own = {**event, "type": "org.wardmesh.audit.audit_status.v1", "data": {"outcome": {"code": "success"}}}
    assert line_of(own) is None


@pytest.mark.requirement("SM-8")
def test_a_write_is_three_records_over_its_intent_and_its_outcome() -> None:
    records, call = SmedrecRecords(), call_of("fhirPatientUpdate", Interaction.UPDATE, decision=DECISION)
    told = [made for event, sealed in events_of(call, None) for made in records.of(event, sealed)]
    assert [(each["action"], each["status"]) for each in told] == [("fhirPatientUpdateAttempt", "attempt"), ("cerbos:update", "success")]  # fmt: skip
    again = [made for event, sealed in events_of(call, Outcome(status=200)) for made in records.of(event, sealed)]
    assert [(each["action"], each["status"], each["responseStatus"]) for each in again] == [("fhirPatientUpdate", "success", 200)]  # fmt: skip
    assert not [made for event, sealed in events_of(call, Outcome(status=200)) for made in records.of(event, sealed)]


@pytest.mark.requirement("SM-8")
def test_a_search_over_many_patients_is_three_records_too() -> None:
    call = call_of(
        "fhirResourceSearch", Interaction.SEARCH, resource=Resource(type="Observation"), query="code=a&code=b&_count=3"
    )
    found = tuple(Touched(patient=f"store/Patient/{n}", type="Observation", ids=(str(n),)) for n in range(5))
    records = SmedrecRecords()
    told = [
        made
        for event, sealed in events_of(call, Outcome(status=200, touched=found))
        for made in records.of(event, sealed)
    ]
    assert [each["action"] for each in told] == ["fhirResourceSearchAttempt", "cerbos:search", "fhirResourceSearch"]
    assert {str(each["searchParams"]) for each in told} == {"{'code': ['a', 'b'], '_count': '3'}"}
    assert {each["targetResourceType"] for each in told} == {"Observation"}


@pytest.mark.requirement("SM-8")
@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "FHIR client not available."), (404, "FHIR Patient read failed: Status 404"), (503, "FHIR Patient read failed: Status 503")],
)  # fmt: skip
def test_a_failure_says_what_it_was(status: int, said: str) -> None:
    problem = Problem(code="x", status=status, detail="")
    call = call_of("fhirPatientRead", Interaction.READ, principal=None)
    ((event, sealed),) = events_of(call, Outcome(status=status, problem=problem))
    attempt, _, last = SmedrecRecords().of(event, sealed)
    assert (last["outcomeDescription"], last["responseStatus"], last["principalId"]) == (said, status, "anonymous")
    assert (attempt["timestamp"], attempt["targetResourceId"]) == (instant(NOW - 1), "p1")


def test_tools_of_others_leave_no_such_records() -> None:
    for event, sealed in events_of(call_of("read", Interaction.READ), Outcome(status=200)):
        assert SmedrecRecords().of(event, sealed) == []
