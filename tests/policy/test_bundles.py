"""Batches and transactions: every entry judged as the request it stands for, in one question to a real Cerbos."""

from __future__ import annotations

import pytest

import engines
from policy.pdp_stage import OWN, Judge, bundle_of, caller, judging
from wardmesh_common.errors import BadRequest
from wardmesh_common.vocabulary import Decision, Grant

pytestmark = pytest.mark.anyio
MIXED = (
    ("POST", "Observation"),
    ("DELETE", "Patient/1"),
    ("GET", "Patient/1"),
    ("GET", "AuditEvent?agent=x"),
    ("PUT", "Observation?identifier=x"),
)


async def decided(judge: Judge, role: str, kind: str, *entries: tuple[str, str], **more: object) -> Decision:
    return await judge.decide(caller(role), bundle_of(kind, *entries, **more))


async def test_a_batch_leaves_its_refused_entries_behind(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        decision = await decided(judge, "Doctor", "batch", *MIXED)
        assert decision.allowed
        assert decision.obligations.denied_entries == (1, 3)
        assert judge.cerbos.requests == 1, "all entries in one question"
        nothing = await decided(judge, "Doctor", "batch", ("DELETE", "Patient/1"), ("GET", "AuditEvent"))
        assert not nothing.allowed
        assert nothing.reason.startswith("entry 0: no rule allows delete on Patient")


async def test_one_refused_entry_refuses_a_transaction(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        decision = await decided(judge, "Doctor", "transaction", *MIXED)
        assert (decision.allowed, decision.obligations.denied_entries) == (False, ())
        assert decision.reason == "entry 1: no rule allows delete on Patient for role Doctor"
        good = await decided(judge, "Doctor", "transaction", *(MIXED[0], MIXED[2], MIXED[4]))
        assert good.allowed


async def test_a_conditional_entry_needs_the_right_to_search(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        call = bundle_of("batch", ("POST", "Practitioner", "identifier=x"), ("GET", f"Practitioner/{OWN}"))
        decision = await judge.decide(caller("practitioner"), call)
        assert decision.obligations.denied_entries == (0,)
        chained = await decided(judge, "Nurse", "batch", ("GET", "Observation?patient.address=x"), ("GET", "Patient/1"))
        assert chained.obligations.denied_entries == (0,)


async def test_a_thousand_equal_entries_are_few_questions(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        entries = [("POST", kind) for _ in range(500) for kind in ("Observation", "Encounter")]
        decision = await decided(judge, "Doctor", "transaction", *entries)
        assert decision.allowed
        assert (judge.cerbos.requests, judge.cerbos.resources) == (1, 2)
        spread = [("GET", f"Patient/{number}") for number in range(120)] + [("DELETE", "Patient/1")]
        assert (await decided(judge, "Doctor", "batch", *spread)).obligations.denied_entries == (120,)


async def test_what_is_limited_in_one_entry_is_limited_in_all(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        decision = await decided(judge, "patient", "batch", ("GET", "Organization/1"), ("GET", "Observation/1"))
        assert decision.allowed
        assert decision.obligations.compartment == OWN


@pytest.mark.parametrize(
    "entry",
    [
        ("POST", "Patient/_search"),
        ("POST", "Patient/1"),
        ("POST", ""),
        ("PUT", "Patient"),
        ("DELETE", "Observation"),
        ("DELETE", "Patient/1/_history"),
        ("GET", "Patient/1/Observation/2"),
        ("GET", "Patient//1"),
        ("GET", "/Patient/1"),
        ("GET", "Patient/../AuditEvent/1"),
        ("GET", "Patient/%5Fhistory"),
        ("GET", "Patient/1/%24everything"),
        ("GET", "Patient/$everything/1"),
        ("PUT", "Patient/1/$everything"),
        ("GET", "http://elsewhere/Patient/1"),
        ("OPTIONS", "Patient/1"),
        ("GET", "metadata/x"),
    ],
)
async def test_an_entry_that_cannot_be_judged_refuses_the_whole(pdp: engines.Cerbos, entry: tuple[str, str]) -> None:
    async with judging(pdp.target) as judge:
        with pytest.raises(BadRequest):
            await decided(judge, "Admin", "batch", ("GET", "Patient/1"), entry)
        with pytest.raises(BadRequest):
            await decided(judge, "Admin", "batch")


async def test_writing_in_a_bundle_is_off_where_writing_is_off(pdp: engines.Cerbos) -> None:
    async with judging(pdp.target) as judge:
        batch = await decided(judge, "Admin", "batch", ("GET", "Patient/1"), ("POST", "Patient"), platform="closed")
        assert batch.obligations.denied_entries == (1,)
        assert not (await decided(judge, "Admin", "transaction", ("POST", "Patient"), platform="closed")).allowed


async def test_a_grant_for_one_patient_holds_for_every_entry(pdp: engines.Cerbos) -> None:
    grant = Grant(platform="ehr", scopes=("patient/*.cruds",), patient="p7")
    entries = (("GET", "Patient/p7"), ("PUT", "Patient/p8"), ("GET", "Observation?code=x"), ("POST", "Observation"))
    async with judging(pdp.target) as judge:
        decision = await decided(judge, "", "batch", *entries, platform="ehr", grant=grant)
        assert decision.obligations.denied_entries == (1, 3), "whose Observation would be written is not seen here"
        assert decision.obligations.compartment == "p7"
