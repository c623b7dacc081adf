"""SM-7 cell by cell, decided by a real Cerbos; the table is written out here on purpose."""

from __future__ import annotations

import pytest

import engines
from policy.pdp_stage import OTHER, OWN, POLICIES, judging
from wardmesh_policy.bundle import kinds_of

pytestmark = pytest.mark.anyio

ROLES = ("admin", "owner", "practitioner", "patient", "member")
# SM-10's kinds without those of the other two tables.
CLINICAL = [
    "Patient",
    "AllergyIntolerance",
    "CarePlan",
    "CareTeam",
    "Condition",
    "Coverage",
    "Device",
    "DiagnosticReport",
    "DocumentReference",
    "Encounter",
    "FamilyMemberHistory",
    "Goal",
    "Immunization",
    "MedicationDispense",
    "MedicationRequest",
    "MedicationStatement",
    "Observation",
    "Procedure",
    "QuestionnaireResponse",
    "RelatedPerson",
    "ServiceRequest",
    "Specimen",
]
TABLES = {
    tuple(CLINICAL): """
        read    Y Y Y own -
        search  Y Y Y -   -
        create  Y Y Y -   -
        update  Y Y Y own -
        delete  Y Y - -   -""",
    ("Practitioner", "Person"): """
        read    Y Y Y   - -
        update  Y Y own - -
        create  Y Y -   - -
        search  Y Y -   - -
        delete  Y Y -   - -""",
    ("Organization",): """
        read    Y Y Y Y Y
        create  Y Y - - -
        update  Y Y - - -
        search  Y Y - - -
        delete  Y Y - - -""",
}
CELLS = [
    (kind, line.split()[0], role, cell)
    for kinds, table in TABLES.items()
    for kind in kinds
    for line in table.strip().splitlines()
    for role, cell in zip(ROLES, line.split()[1:], strict=True)
]
ADDRESSED = ("read", "update", "delete")


@pytest.mark.requirement("SM-7")
async def test_every_cell_of_the_matrix_is_decided_as_written(pdp: engines.Cerbos) -> None:
    wrong: list[str] = []
    async with judging(pdp.target) as judge:
        for kind, action, role, cell in CELLS:
            allowed: dict[str, bool] = {}
            for whose in (OWN, OTHER):
                by_subject = action in ("create", "update") and kind in CLINICAL and kind != "Patient"
                decision = await judge.ask(
                    role,
                    action,
                    kind,
                    resource_id=(f"x-{whose}" if by_subject else whose) if action in ADDRESSED else "",
                    subject=whose if by_subject else "",
                )
                # "Own" of a clinical kind is an obligation: the answer is not known before it is there.
                limited = decision.obligations.compartment == OWN
                lets_only_own_out = action == "read" and kind in CLINICAL and kind != "Patient" and limited
                allowed[whose] = decision.allowed and not (lets_only_own_out and whose == OTHER)
                if cell == "Y" and decision.obligations.compartment:
                    wrong.append(f"{kind} {action} {role}: limited")
                if cell == "own" and decision.allowed and role == "patient" and not limited:
                    wrong.append(f"{kind} {action} {role}: not limited")
            expected = {"Y": (True, True), "own": (True, False), "-": (False, False)}[cell]
            if (allowed[OWN], allowed[OTHER]) != expected:
                wrong.append(f"{kind} {action} {role}: {allowed}, expected {cell}")
    assert wrong == []
    assert len(CELLS) == (22 + 2 + 1) * 5 * 5


@pytest.mark.requirement("SM-7")
@pytest.mark.parametrize("roles", [(), ("guest",), ("anonymous",), ("superuser",), ("*",), ("Admin ",), ("ADMIN",)])
async def test_no_role_comes_from_nowhere(pdp: engines.Cerbos, roles: tuple[str, ...]) -> None:
    async with judging(pdp.target) as judge:
        for kind in kinds_of(POLICIES):
            for action in ("read", "search", "create", "update", "delete", "history"):
                for who in ({}, {"id": "anonymous"}):
                    call = {"resource_id": OWN} if action in ADDRESSED else {}
                    decision = await judge.ask(roles, action, kind, who=who, subject=OWN, **call)
                    assert not decision.allowed, (kind, action, roles)


async def test_somebody_anonymous_has_no_role_whatever_is_stamped_beside_it(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        decision = await judge.ask("admin", "read", "Patient", resource_id=OWN, who={"id": "anonymous"})
        assert not decision.allowed


async def test_what_has_no_rule_is_refused_with_a_reason_and_without_a_rule(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        unknown_kind = await judge.ask("admin Admin owner", "read", "Basic", resource_id="1")
        assert (unknown_kind.allowed, unknown_kind.rule) == (False, "")
        assert unknown_kind.reason == "no rule allows read on Basic for role Admin, admin, owner"
        for kind, operation in (
            ("Patient", "$match"),
            ("", "$graphql"),
            ("Patient", "$process-message"),
            ("", "$import"),
        ):
            decision = await judge.ask("admin Admin owner", "operation", kind, operation=operation)
            assert not decision.allowed, operation
        for kind in ("System", "", "Binary", "List", "Basic"):
            assert not (await judge.ask("Doctor", "search", kind)).allowed


@pytest.mark.requirement("X-27")
async def test_an_id_that_equals_the_callers_own_proves_nothing(pdp: engines.Cerbos) -> None:
    """The decision for a clinical resource is the same whatever its id; only the compartment says whose it is."""
    async with judging(pdp.target) as judge:
        for kind in (kind for kind in CLINICAL if kind != "Patient"):
            for resource_id in (OWN, "i:somebody", OTHER):
                read = await judge.ask("patient", "read", kind, resource_id=resource_id)
                assert (read.allowed, read.obligations.compartment) == (True, OWN)
                written = await judge.ask("patient", "update", kind, resource_id=resource_id, subject=OTHER)
                assert not written.allowed
            unknown = await judge.ask("patient", "read", kind, resource_id=OWN, who={"patient": ""})
            assert not unknown.allowed, "without a patient claim there is no own record"


async def test_a_patient_id_of_the_home_platform_means_nobody_elsewhere(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        for platform in ("closed", "ehr"):
            for kind in ("Patient", "Observation"):
                assert not (await judge.ask("patient", "read", kind, resource_id=OWN, platform=platform)).allowed
