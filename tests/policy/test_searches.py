"""Arguments decide: hidden elements, chains, _has, sorts, conditions and patches, on a real Cerbos."""

from __future__ import annotations

import json

import pytest

import engines
from policy.pdp_stage import OWN, bundle_of, call_of, caller, judging
from wardmesh_common.contracts import Parked
from wardmesh_common.errors import BadRequest

pytestmark = pytest.mark.anyio

REFUSED = {
    "Nurse": [
        "Patient?identifier=x",
        "Patient?address=x",
        "Patient?address-city:exact=x",
        "Patient?phone=x",
        "Patient?name=x&telecom=y",
        "Patient?_sort=address",
        "Patient?_sort=name,-identifier",
        "Patient?%69dentifier=x",
        "Patient?name=x;identifier=y",
        "Patient?_text=x",
        "Patient?_filter=identifier%20eq%20x",
        "Patient?link:Patient.identifier=x",
        "Patient?_has:Observation:patient:subject.address=x",
        "Observation?patient.identifier=x",
        "Observation?subject:Patient.address=x",
        "Observation?subject:identifier=x",
        "Observation?_sort=patient.address",
        "Observation?_text=x",
        "Observation?_content=x",
        "Observation?_filter=patient.address%20eq%20x",
        "Observation?performer.address=x",
        "Observation?performer:Practitioner.address=x",
        "Observation?_has:Provenance:target:patient.identifier=x",
        "Encounter?_has:AuditEvent:entity:agent=x",
        "Coverage?identifier=x",
        "RelatedPerson?address=x",
        "Practitioner?address=x",
        "Appointment?actor.name=x",
    ],
    "Billing": [
        "Patient?birthdate=1980-02-03",
        "Patient?birthdate=ge1980-02",
        "Patient?birthdate=1980&birthdate=1980-02-03",
        "Patient?birthdate=1980,1980-02-03",
        "Patient?birthdate:missing=true",
        "Patient?birthdate=1980&birthdate:not=1980-02-03",
        "Patient?birthdate=1980&_sort=birthdate",
        "Patient?general-practitioner=x",
        "Coverage?type=x",
        "Claim?procedure-udi=x",
        "ExplanationOfBenefit?procedure-udi=x",
        "Claim?patient.birthdate=1980-02-03",
    ],
    "Reception": ["Appointment?reason-code=x", "Appointment?_text=x", "Appointment?patient.birthdate=1980-02-03"],
    "Doctor": ["Patient?_has:AuditEvent:entity:agent=x", "Appointment?slot:Slot.schedule:Schedule.actor=x"],
    "practitioner": ["Observation?performer:Practitioner.name=x", "Observation?performer.name=x"],
}
ALLOWED = {
    "Nurse": [
        "Patient?name=Doe&birthdate=1980-02-03&_sort=-birthdate",
        "Observation?code=x&_sort=-date&_count=5",
        "Observation?patient.name=Doe",
        "Observation?subject:Patient.name=Doe",
        "Patient?_has:Observation:patient:code=x",
        "Coverage?patient=Patient/1&type=x",
    ],
    "Billing": ["Patient?birthdate=1980", "Patient?birthdate=ge1980&name=x", "Claim?patient=Patient/1"],
    "Reception": ["Appointment?date=2026-01-01&patient=Patient/1", "Appointment?patient.name=x"],
    "Doctor": ["Patient?identifier=x&address=y", "Observation?patient.identifier=x", "Patient?_sort=birthdate"],
    "practitioner": ["Observation?patient.identifier=x"],
}


def split(text: str) -> tuple[str, str]:
    kind, _, query = text.partition("?")
    return kind, query


async def test_no_search_reveals_what_is_hidden_from_the_one_who_asks(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        for role, searches in REFUSED.items():
            for kind, query in map(split, searches):
                decision = await judge.ask(role, "search", kind, query=query)
                assert not decision.allowed, (role, kind, query)
                assert decision.reason
                form = await judge.ask(role, "search", kind, body=query.encode())
                assert not form.allowed, "the same criteria as a form"


async def test_other_searches_go_on(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        for role, searches in ALLOWED.items():
            for kind, query in map(split, searches):
                assert (await judge.ask(role, "search", kind, query=query)).allowed, (role, kind, query)


async def test_one_changed_argument_changes_the_outcome_and_both_are_explained(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        good = await judge.ask("Nurse", "search", "Patient", query="name=Doe")
        bad = await judge.ask("Nurse", "search", "Patient", query="identifier=Doe")
        assert (good.allowed, good.rule, good.reason) == (True, "Patient#staff_searches", "allowed")
        assert (bad.allowed, bad.reason) == (False, "a search by an element that is hidden from this role")
        assert len({good.id, bad.id}) == 2
        assert good.policy_version == bad.policy_version == judge.version
        assert len({good.covers, bad.covers}) == 2


async def test_criteria_that_cannot_be_read_are_refused(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        with pytest.raises(BadRequest):
            await judge.ask("Nurse", "search", "Patient", query="&".join(["name=x"] * 501))
        parked = Parked(subject="s", size=9, sha256="0")
        with pytest.raises(BadRequest):
            await judge.ask("Nurse", "search", "Patient", parked=parked)


async def test_a_conditional_write_needs_the_right_to_search(pdp: engines.Cerbos) -> None:
    """A `practitioner` may update the own entry in the directory, but not search it (SM-7)."""
    header = {"if-none-exist": "identifier=x"}
    async with judging(pdp.target) as judge:
        for kind, allowed in (("Observation", True), ("Practitioner", False)):
            decision = await judge.ask("practitioner", "create", kind, headers=header)
            assert decision.allowed is allowed
        for action in ("update", "patch", "delete"):
            decision = await judge.ask("patient", action, "Observation", query="identifier=x", subject=OWN)
            assert not decision.allowed
        # Doctor and nurse in one: may create and may search, but not by what the nurse does not see.
        for condition, allowed in (
            ("name=x", True),
            ("identifier=x", False),
            ("Patient?identifier=x", False),
            ("identifier=x&y=?name=z", False),
            ("general-practitioner.address=x", False),
        ):
            created = await judge.ask("Doctor Nurse", "create", "Patient", headers={"if-none-exist": condition})
            assert created.allowed is allowed, condition
        hidden = await judge.ask(
            "Doctor Nurse", "update", "Patient", query="identifier=x", headers={"if-none-exist": "name=x"}
        )
        assert not hidden.allowed, "the header does not stand in front of the query"
        (entry,) = (bundle_of("transaction", ("POST", "Patient", "identifier=x")),)
        assert not (await judge.decide(caller("Doctor Nurse"), entry)).allowed


async def test_a_patch_brings_nothing_out_that_is_hidden(pdp: engines.Cerbos) -> None:
    copying = [{"op": "copy", "from": "/identifier/0/value", "path": "/name/0/text"}]
    testing = [{"op": "test", "path": "/birthDate", "value": "1980-02-03"}, {"op": "add", "path": "/a", "value": 1}]
    setting = [{"op": "add", "path": "/active", "value": True}]
    path = {"resourceType": "Parameters", "parameter": [{"name": "operation"}]}
    async with judging(pdp.target) as judge:
        for patch, allowed in ((copying, False), (testing, False), (setting, True), (path, False), ("", False)):
            body = json.dumps(patch).encode()
            masked = await judge.ask("Doctor Nurse", "patch", "Patient", resource_id="1", body=body)
            assert masked.allowed is allowed, patch
            assert (await judge.ask("Doctor", "patch", "Patient", resource_id="1", body=body)).allowed
        unseen = bundle_of("transaction", ("PATCH", "Patient/1"))
        assert not (await judge.decide(caller("Doctor Nurse"), unseen)).allowed


async def test_a_compartment_is_searched_by_the_rules_of_its_members(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        for role, member, allowed in (
            ("Nurse", "Observation", True),
            ("Reception", "Observation", False),
            ("Reception", "Appointment", True),
            ("Reception", "*", False),
            ("Doctor", "*", True),
            ("patient", "*", True),
            ("patient", "Observation", False),
        ):
            decision = await judge.ask(role, "search", "Patient", resource_id=OWN, operation=member)
            assert decision.allowed is allowed, (role, member)
        other = await judge.ask("patient", "search", "Patient", resource_id="other-2", operation="*")
        assert not other.allowed


def test_a_form_is_part_of_what_a_decision_covers() -> None:
    one, two = (call_of("search", "Patient", body=body) for body in (b"name=x", b"identifier=x"))
    two.id = one.id
    assert one.digest() != two.digest()
