"""Break-glass at policy: it stands in for the rules of one patient's record and of nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from importlib import resources
from typing import Any

import msgspec
import pytest

import engines
from policy.pdp_stage import Judge, call_of, caller, judging
from wardmesh_common.contracts import Call, Entry
from wardmesh_common.errors import BadRequest
from wardmesh_common.vocabulary import Emergency
from wardmesh_policy.checks import checks_of
from wardmesh_policy.record_kinds import RECORD_KINDS

pytestmark = pytest.mark.anyio
PASS = Emergency(id="e1", platform="store", patient="p9", reason_code="unconscious", reason="found", expires=9e9)


def urgent(action: str, kind: str, **more: Any) -> Call:
    call = call_of(action, kind, **more)
    call.emergency = PASS
    return call


def test_the_kinds_of_a_record_are_those_of_the_compartment_but_for_groups_and_who_looked() -> None:
    text = (resources.files("wardmesh_fhir_proxy") / "data" / "patient_compartment.json").read_text("utf-8")
    assert set(json.loads(text)["types"]) - RECORD_KINDS == {"AuditEvent", "Group"}
    assert set(json.loads(text)["types"]) >= RECORD_KINDS


@pytest.mark.requirement("B-14")
@pytest.mark.parametrize(
    ("call", "kinds"),
    [
        (urgent("read", "Patient", resource_id="p9"), ["Emergency"]),
        (urgent("search", "Observation"), ["Emergency"]),
        (urgent("search", "Observation", query="_has:Group:member:code=x"), ["Emergency", "Group"]),
        (urgent("read", "Practitioner", resource_id="d1"), ["Practitioner"]),
        (urgent("search", "AuditEvent"), ["AuditEvent"]),
        (urgent("search", "", query="_type=Practitioner"), ["System"]),
        (urgent("update", "Practitioner", resource_id="d1"), ["Emergency"]),
    ],
)
def test_what_is_no_part_of_a_record_is_judged_as_without_a_pass_and_never_written(
    call: Call, kinds: list[str]
) -> None:
    checks = checks_of(call)
    assert sorted({check.kind for check in checks}) == kinds
    assert all(check.target == ("", "") for check in checks if check.kind != "Emergency")


@pytest.mark.requirement("B-14")
@pytest.mark.parametrize("interaction", ["batch", "transaction"])
def test_a_bundle_is_not_sent_under_a_pass(interaction: str) -> None:
    call = urgent(interaction, "", entries=(Entry(method="GET", url="Patient/p9"),))
    with pytest.raises(BadRequest, match="bundle"):
        checks_of(call)


@pytest.fixture
async def judge(pdp: engines.Cerbos) -> AsyncIterator[Judge]:
    async with judging(pdp.target) as ready:
        yield ready


@pytest.mark.requirement("B-14")
async def test_a_pass_lifts_the_masks_of_its_patient_and_nobody_elses(judge: Judge) -> None:
    nurse = caller("Nurse")
    own = await judge.decide(nurse, urgent("read", "Patient", resource_id="p9"))
    assert own.allowed and not own.obligations.masks
    assert (own.obligations.compartment, own.obligations.spool) == ("p9", True)

    colleague = await judge.decide(nurse, urgent("read", "Practitioner", resource_id="d1"))
    plain = await judge.decide(nurse, call_of("read", "Practitioner", "d1"))
    assert colleague.allowed and colleague.obligations.masks
    assert msgspec.structs.asdict(colleague.obligations) == msgspec.structs.asdict(plain.obligations)
    assert not colleague.obligations.spool
    by_address = await judge.decide(nurse, urgent("search", "Practitioner", query="address=Elm"))
    assert not by_address.allowed, "where somebody lives is not found out by searching either"


@pytest.mark.requirement("B-14")
@pytest.mark.parametrize(
    "call",
    [
        urgent("read", "Patient", resource_id="p8"),
        urgent("search", "Patient", resource_id="p8", operation="Observation"),
        urgent("search", "Patient", resource_id="p8", operation="*"),
        urgent("operation", "Patient", resource_id="p8", operation="$everything"),
        urgent("operation", "Patient", resource_id="p9", operation="$export"),
        urgent("history", "Patient", resource_id="p9"),
        urgent("update", "Practitioner", resource_id="d1"),
        urgent("delete", "Observation", resource_id="o1"),
    ],
)
async def test_a_pass_reaches_no_other_patient_and_writes_nothing_whatever_the_role_may(
    judge: Judge, call: Call
) -> None:
    assert not (await judge.decide(caller("Admin"), call)).allowed
