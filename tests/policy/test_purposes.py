"""What a call is done for, and how the platform's records name who makes it: stated by policy, for the record."""

from __future__ import annotations

import pytest

import engines
from policy.pdp_stage import OWN, judging
from wardmesh_common.vocabulary import Grant

pytestmark = pytest.mark.anyio


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


async def test_a_refusal_and_a_visitor_have_no_purpose(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        refused = await judge.ask("Billing", "search", "Condition")
        assert (refused.allowed, refused.purpose) == (False, "")
        visitor = await judge.ask((), "read", "Patient", resource_id="1", platform="open", who={"id": "anonymous"})
        assert (visitor.allowed, visitor.purpose) == (True, "")


async def test_only_the_home_platform_knows_the_caller_by_the_id_of_the_claims(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        at_home = await judge.ask("practitioner", "read", "Patient", resource_id="1")
        assert at_home.known_as == f"Practitioner/{OWN}"
        grant = Grant(platform="ehr", scopes=("user/*.rs",), everywhere=True)
        away = await judge.ask("practitioner", "read", "Patient", resource_id="1", platform="ehr", grant=grant)
        assert (away.allowed, away.known_as) == (True, "")
        assert (await judge.ask("Doctor", "read", "Patient", who={"practitioner": ""})).known_as == ""
