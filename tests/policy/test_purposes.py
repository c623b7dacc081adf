"""What a call is done for, and how the platform's records name who makes it: stated by policy, for the record."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import engines
from policy.pdp_stage import OWN, POLICIES, Judge, call_of, caller, judging
from wardmesh_common.errors import Unavailable
from wardmesh_common.vocabulary import Emergency, Grant
from wardmesh_policy.cerbos_client import CerbosClient
from wardmesh_policy.checks import PURPOSE, Caller, Check
from wardmesh_policy.verdicts import Verdict

pytestmark = pytest.mark.anyio


class GoneForPurposes:
    """Cerbos, away as soon as it is asked what for."""

    def __init__(self, cerbos: CerbosClient) -> None:
        self._cerbos = cerbos

    async def ask(
        self, caller: Caller, checks: Sequence[tuple[Check, dict[str, Any]]], timeout_seconds: float
    ) -> list[Verdict]:
        if any(check.kind == PURPOSE for check, _ in checks):
            raise Unavailable("away")
        return await self._cerbos.ask(caller, checks, timeout_seconds)


@pytest.mark.parametrize(
    ("roles", "kind", "purpose"),
    [
        ("Doctor", "Observation", "TREAT"),
        ("Nurse", "Observation", "TREAT"),
        ("practitioner", "Observation", "TREAT"),
        ("Admin Doctor", "Observation", "TREAT"),
        ("Billing", "Coverage", "HPAYMT"),
        ("Reception", "Appointment", "HOPERAT"),
        ("Admin", "Observation", "HOPERAT"),
    ],
)
async def test_the_roles_that_allow_say_what_for(pdp: engines.Cerbos, roles: str, kind: str, purpose: str) -> None:
    async with judging(pdp.target) as judge:
        first = await judge.ask(roles, "search", kind)
        assert (first.allowed, first.purpose) == (True, purpose)
        assert (await judge.ask(roles, "search", kind)).purpose == purpose, "the same from the cache"


async def test_a_patient_asks_for_the_own_record(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        own = await judge.ask("patient", "read", "Patient", resource_id=OWN)
        assert (own.allowed, own.purpose, own.obligations.compartment) == (True, "PATRQT", OWN)


async def test_a_visitor_works_for_nothing_that_we_know(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        visitor = await judge.ask((), "read", "Patient", resource_id="1", platform="open", who={"id": "anonymous"})
        assert (visitor.allowed, visitor.purpose) == (True, "")


@pytest.mark.parametrize(
    ("roles", "action", "kind", "platform", "purpose"),
    [
        ("Billing", "search", "Condition", "store", "HPAYMT"),
        ("Reception", "search", "Condition", "store", "HOPERAT"),
        ("Nurse", "delete", "Patient", "store", "TREAT"),
        ("Doctor Billing", "delete", "Patient", "store", "TREAT"),
        ("patient", "read", "Patient", "store", "PATRQT"),
        ("Doctor", "create", "Observation", "closed", "TREAT"),  # writes are off there
        ("member", "read", "Patient", "store", ""),
        ("", "read", "Patient", "store", ""),
    ],
)
async def test_a_refusal_says_what_the_call_was_for_by_the_roles_of_who_asked(
    pdp: engines.Cerbos, roles: str, action: str, kind: str, platform: str, purpose: str
) -> None:
    async with judging(pdp.target) as judge:
        for _ in range(2):  # the second time from the cache
            refused = await judge.ask(roles, action, kind, resource_id="other-3", platform=platform)
            assert (refused.allowed, refused.purpose) == (False, purpose)
            assert refused.obligations.masks == (), "a refusal demands nothing"


async def test_what_is_refused_under_a_pass_was_for_an_emergency_and_a_procedure_treats_nobody(
    pdp: engines.Cerbos,
) -> None:
    async with judging(pdp.target) as judge:
        urgent = Emergency(id="e", platform="store", patient="p", reason_code="other", reason="r", expires=0)
        call = call_of("delete", "Patient", "p", emergency=urgent)
        assert (await judge.decide(caller("Nurse"), call)).purpose == "BTG"
        opening = call_of("operation", "", performer="auth")
        opening.tool = "open_break_glass"
        decision = await judge.decide(caller("Billing"), opening)
        assert (decision.allowed, decision.purpose) == (False, "")


async def test_a_refusal_stands_when_nobody_can_say_what_it_was_for(pdp: engines.Cerbos, tmp_path: Path) -> None:
    """A site's own policies need not have the one for purposes, and Cerbos may go away in between."""
    folder = tmp_path / "policies"
    shutil.copytree(POLICIES, folder)
    for path in folder.glob("purpose*.yaml"):
        path.unlink()
    with engines.cerbos(folder) as engine:
        async with judging(engine.target, folder) as judge:
            refused = await judge.ask("Billing", "search", "Condition")
            assert (refused.allowed, refused.purpose) == (False, "")
            assert "no rule allows" in refused.reason
    client = CerbosClient(pdp.target)
    try:
        refused = await Judge(GoneForPurposes(client)).ask("Billing", "search", "Condition")
        assert (refused.allowed, refused.purpose) == (False, "")
    finally:
        await client.close()


async def test_only_the_home_platform_knows_the_caller_by_the_id_of_the_claims(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        at_home = await judge.ask("practitioner", "read", "Patient", resource_id="1")
        assert at_home.known_as == f"Practitioner/{OWN}"
        grant = Grant(platform="ehr", scopes=("user/*.rs",), everywhere=True)
        away = await judge.ask("practitioner", "read", "Patient", resource_id="1", platform="ehr", grant=grant)
        assert (away.allowed, away.known_as) == (True, "")
        assert (await judge.ask("Doctor", "read", "Patient", who={"practitioner": ""})).known_as == ""
