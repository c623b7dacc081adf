"""The table of SH-5 on FHIR kinds: six roles, cell by cell, decided by a real Cerbos."""

from __future__ import annotations

import pytest

import engines
from policy.pdp_stage import OTHER, OWN, POLICIES, judging
from wardmesh_policy.bundle import kinds_of

pytestmark = pytest.mark.anyio

ROLES = ("Admin", "Doctor", "Nurse", "Billing", "Reception", "Auditor")
# r = read and search as they are, m = with masks, - = refused. Admissions are Encounters, PHI adds Coverage.
READS = """
    Patient               r r m m m r
    Coverage              r r m m - r
    Claim                 r - - m - r
    ExplanationOfBenefit  r - - m - r
    Condition             r r m - - r
    Observation           r r m - - r
    Procedure             r r m - - r
    DiagnosticReport      r r m - - r
    DocumentReference     r r m - - r
    MedicationRequest     r r m - - r
    AllergyIntolerance    r r m - - r
    Encounter             r r m - - r
    Appointment           r r m - m r
    Practitioner          r r m m m r
    Organization          r r m m m r
"""
CELLS = [
    (line.split()[0], role, cell)
    for line in READS.strip().splitlines()
    for role, cell in zip(ROLES, line.split()[1:], strict=True)
]


async def test_every_cell_of_the_hospitals_table_is_decided_as_written(pdp: engines.Cerbos) -> None:
    wrong: list[str] = []
    async with judging(pdp.target) as judge:
        for kind, role, cell in CELLS:
            for action, resource_id in (("read", OTHER), ("search", "")):
                decision = await judge.ask(role, action, kind, resource_id=resource_id)
                got = "-" if not decision.allowed else "m" if decision.obligations.masks else "r"
                if got != cell:
                    wrong.append(f"{kind} {action} {role}: {got}, expected {cell}")
                if decision.obligations.compartment:
                    wrong.append(f"{kind} {action} {role}: limited to a patient")
    assert wrong == []
    assert len(CELLS) == 90


async def test_the_roster_is_open_to_administration_and_everyone_may_ask_for_the_own_one(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        for role in ROLES:
            everyone = role in ("Admin", "Auditor")
            assert (await judge.ask(role, "search", "Schedule")).allowed is everyone
            assert (await judge.ask(role, "search", "Schedule", query="actor=Practitioner/other-2")).allowed is everyone
            for query in (f"actor=Practitioner/{OWN}", f"actor={OWN}&date=2026-01-01"):
                assert (await judge.ask(role, "search", "Schedule", query=query)).allowed, role
            for query in (f"actor={OWN},other-2", f"actor:missing={OWN}", f"actor={OWN}.x"):
                assert (await judge.ask(role, "search", "Schedule", query=query)).allowed is everyone, query
            nobody = await judge.ask(role, "search", "Schedule", query="actor=", who={"practitioner": ""})
            assert nobody.allowed is everyone


async def test_an_auditor_changes_nothing(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        for kind in kinds_of(POLICIES):
            for action in ("create", "update", "patch", "delete"):
                decision = await judge.ask(
                    "Auditor", action, kind, resource_id="" if action == "create" else OWN, subject=OWN
                )
                assert not decision.allowed, (kind, action)


@pytest.mark.parametrize("role", ["Nurse", "Billing", "Reception"])
async def test_who_sees_masked_copies_writes_nothing(pdp: engines.Cerbos, role: str) -> None:
    async with judging(pdp.target) as judge:
        for kind in kinds_of(POLICIES):
            for action in ("create", "update", "patch", "delete"):
                resource_id = "" if action == "create" else OWN
                assert not (await judge.ask(role, action, kind, resource_id=resource_id, subject=OWN)).allowed


async def test_only_the_auditor_reads_audit_trails(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        for role in (*ROLES, "admin", "owner", "practitioner", "patient", "member"):
            for action, resource_id in (("read", "1"), ("search", "")):
                allowed = (await judge.ask(role, action, "AuditEvent", resource_id=resource_id)).allowed
                assert allowed is (role == "Auditor"), role
