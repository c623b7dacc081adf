"""What a role sees of people: the obligations of a real Cerbos, carried out by the performer's own masks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import engines
from policy.pdp_stage import POLICIES, Judge, judging
from policy.people import COVERAGE, PATIENT, documents
from wardmesh_common.vocabulary import Mask
from wardmesh_fhir_proxy.masks import Masks
from wardmesh_policy.verdicts import masks_of

pytestmark = pytest.mark.anyio
LINES = yaml.safe_load((POLICIES / "masks.yaml").read_text())["exportConstants"]["definitions"]
# These repeat what another line does: a masked copy loses its narrative anyway, and `directory` holds for nurses too.
TWICE = {"* text remove", "Practitioner . keep active,name,gender,telecom,qualification,communication"}


def seen_through(masks: Sequence[Mask], document: dict[str, Any]) -> dict[str, Any]:
    copy = json.loads(json.dumps(document))
    Masks(masks).apply(copy)
    return copy


def leaks(masks: Sequence[Mask]) -> list[str]:
    """Markers that come through."""
    shown = json.dumps([seen_through(masks, document) for document in documents()])
    return sorted(word for word in set(shown.replace('"', " ").replace("<", " ").split()) if "HIDDEN" in word)


async def masks_for(judge: Judge, role: str, kind: str) -> tuple[Mask, ...]:
    decision = await judge.ask(role, "read", kind, resource_id="x")
    assert decision.allowed
    return decision.obligations.masks


async def test_a_nurse_gets_no_number_and_no_address(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        for action, resource_id in (("read", "p1"), ("search", ""), ("vread", "p1"), ("history", "p1")):
            decision = await judge.ask("Nurse", action, "Patient", resource_id=resource_id)
            assert leaks(decision.obligations.masks) == [], action
        everything = await judge.ask("Nurse", "operation", "Patient", resource_id="p1", operation="$everything")
        assert leaks(everything.obligations.masks) == []
        masks = await masks_for(judge, "Nurse", "Patient")
    shown = seen_through(masks, PATIENT)
    assert shown["birthDate"] == "1980-02-03"
    assert [item["value"] for item in shown["identifier"]] == ["***-**-****", "[REDACTED]", "[REDACTED]"]
    assert shown["address"][0] == {
        "text": "[REDACTED]",
        "line": ["[REDACTED]"],
        "city": "[REDACTED]",
        "state": "[REDACTED]",
        "postalCode": "[REDACTED]",
    }
    insurance = seen_through(masks, COVERAGE)
    assert (insurance["payor"], insurance["subscriberId"]) == ([{"display": "BlueCross"}], "[REDACTED]")


async def test_a_nurse_has_the_same_masks_on_whatever_kind(pdp: engines.Cerbos) -> None:
    """Resources contain others and come along with them: a mask of one kind's answers alone could be walked round."""
    async with judging(pdp.target) as judge:
        for kind in ("Patient", "Observation", "Encounter", "Coverage", "Organization", "RelatedPerson", "Appointment"):
            assert leaks(await masks_for(judge, "Nurse", kind)) == [], kind


async def test_billing_sees_exactly_the_insurance(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        masks = await masks_for(judge, "Billing", "Coverage")
        assert masks == await masks_for(judge, "Billing", "Patient")
    assert leaks(masks) == [
        "HIDDEN-document",  # of kinds that Billing is refused
        "HIDDEN-policy-number",
        "HIDDEN-reference-ssn",
        "HIDDEN-report",
    ]
    assert seen_through(masks, COVERAGE) == {
        "resourceType": "Coverage",
        "id": "c1",
        "status": "active",
        "subscriberId": "HIDDEN-policy-number",
        "beneficiary": {"reference": "Patient/p1"},
        "payor": [{"display": "BlueCross"}],
    }
    claim = {"resourceType": "Claim", "id": "k", "diagnosis": [{"x": 1}], "procedure": [{"x": 1}], "status": "active"}
    assert seen_through(masks, claim) == {"resourceType": "Claim", "id": "k", "status": "active"}


@pytest.mark.parametrize("role", ["Billing", "Reception"])
async def test_the_office_sees_an_overview_of_a_patient(pdp: engines.Cerbos, role: str) -> None:
    async with judging(pdp.target) as judge:
        masks = await masks_for(judge, role, "Patient")
    assert seen_through(masks, PATIENT) == {
        "resourceType": "Patient",
        "id": "p1",
        "name": [{"family": "Doe", "given": ["Jane"]}],
        "gender": "female",
        "birthDate": "1980",
    }


async def test_reception_sees_when_somebody_comes_and_not_why(pdp: engines.Cerbos) -> None:
    visit = {"resourceType": "Appointment", "id": "a", "start": "2026-01-01", "reasonCode": [{"text": "HIDDEN"}]}
    async with judging(pdp.target) as judge:
        masks = await masks_for(judge, "Reception", "Appointment")
    assert seen_through(masks, visit) == {"resourceType": "Appointment", "id": "a", "start": "2026-01-01"}


@pytest.mark.parametrize("roles", ["Doctor Nurse", "Nurse Doctor", "Admin Nurse", "Nurse patient", "Auditor Nurse"])
async def test_a_second_role_takes_no_mask_away(pdp: engines.Cerbos, roles: str) -> None:
    async with judging(pdp.target) as judge:
        assert leaks(await masks_for(judge, roles, "Patient")) == []
        both = await masks_for(judge, "Nurse Reception", "Patient")
        assert seen_through(both, PATIENT)["birthDate"] == "1980"


@pytest.mark.parametrize("line", [line for line in LINES["nurse"].splitlines() if line not in TWICE])
def test_each_line_of_the_nurses_masks_is_needed(line: str) -> None:
    both = LINES["nurse"] + LINES["directory"]
    assert leaks(masks_of(both)) == []
    weaker = both.replace(line + "\n", "")
    assert weaker != both
    assert leaks(masks_of(weaker)) != []


async def test_the_test_of_a_mask_fails_when_its_line_is_gone(tmp_path: Path) -> None:
    mutated = Path(shutil.copytree(POLICIES, tmp_path / "policies"))
    masks = mutated / "masks.yaml"
    line = "      Patient identifier.value replace ***-**-**** if system=http://hl7.org/fhir/sid/us-ssn\n"
    text = masks.read_text()
    assert text.count(line) == 1
    masks.write_text(text.replace(line, ""))
    with engines.cerbos(mutated) as weaker:
        async with judging(weaker.target, mutated) as judge:
            assert leaks(await masks_for(judge, "Nurse", "Patient")) == ["HIDDEN-ssn"]
