"""What an answer shows of the relationship between caller and patient goes into the record, and nothing more."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from wardmesh_common.contracts import Call, Outcome, Touched
from wardmesh_common.leaf import draft_events
from wardmesh_common.vocabulary import Decision, Grant, Obligations

pytestmark = pytest.mark.anyio
ME = "Practitioner/DR1"


def about(kind: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": kind, "id": "x1", **more}


async def related(bench: Any, resource: dict[str, Any], **decided: Any) -> tuple[Call, Outcome]:
    """One read by somebody whom this platform's records call DR1."""
    bench.upstream.answer(resource)
    grant = decided.pop("grant", None)
    call = bench.call("read", resource["resourceType"], resource["id"], grant=grant or Grant(platform="probe"))
    call.decision = msgspec.structs.replace(call.decision, **{"purpose": "TREAT", "known_as": ME, **decided})
    return call, await bench.send(call)


@pytest.mark.parametrize(
    ("resource", "relationship"),
    [
        (about("Patient", generalPractitioner=[{"reference": ME}]), "general-practitioner"),
        (about("Patient", generalPractitioner=[{"reference": "Practitioner/DR11"}]), ""),
        (about("Patient", generalPractitioner=[{"display": ME.replace("/", " ")}]), ""),
        (about("Encounter", subject={"reference": "Patient/p1"}, participant=[{"individual": {"reference": ME}}]),
         "encounter"),
        (about("CareTeam", subject={"reference": "Patient/p1"}, participant=[{"member": {"reference": ME}}]),
         "care-team"),
        (about("Observation", subject={"reference": "Patient/p1"}, performer=[{"reference": f"{ME}/_history/2"}]),
         "treating"),
        (about("Observation", subject={"reference": "Patient/p1"}), ""),
        (about("Communication", subject={"reference": "Patient/p1"}, sender={"reference": ME}), ""),
    ],
)  # fmt: skip
async def test_the_record_says_how_the_caller_is_named_in_what_was_read(
    bench: Any, resource: dict[str, Any], relationship: str
) -> None:
    call, outcome = await related(bench, resource)
    (touched,) = outcome.touched
    assert touched.relationship == relationship
    (draft,) = draft_events(call, outcome, outcome.touched, time.time())
    assert draft.data.get("relationship", "") == relationship, "what is not known is left out, not called none"
    assert draft.data["purpose_of_use"] == "TREAT"
    assert "DR1" not in msgspec.json.encode(draft.data["resource"]).decode()


async def test_a_launch_and_an_own_record_are_relationships_and_strangers_names_are_none(bench: Any) -> None:
    patient = about("Patient", generalPractitioner=[{"reference": ME}])
    launched = Grant(platform="probe", patient="x1")
    for decided, expected in (
        ({"known_as": ""}, ""),
        ({"known_as": "", "grant": launched}, "launch"),
        ({"known_as": "", "purpose": "PATRQT", "obligations": Obligations(compartment="x1")}, "self"),
        ({"known_as": "", "obligations": Obligations(compartment="x1")}, ""),
    ):
        _, outcome = await related(bench, patient, **decided)
        assert [item.relationship for item in outcome.touched] == [expected], decided


async def test_each_patient_of_a_search_has_an_own_relationship(bench: Any) -> None:
    shown = [
        about("Encounter", subject={"reference": "Patient/p1"}, participant=[{"individual": {"reference": ME}}]),
        {**about("Encounter", subject={"reference": "Patient/p2"}), "id": "x2"},
    ]
    entries = [{"resource": resource, "search": {"mode": "match"}} for resource in shown]
    bench.upstream.answer({"resourceType": "Bundle", "type": "searchset", "entry": entries})
    call = bench.call("search", "Encounter")
    call.decision = msgspec.structs.replace(call.decision, known_as=ME, purpose="TREAT")
    outcome = await bench.send(call)
    drafts = draft_events(call, outcome, outcome.touched, time.time())
    found = {draft.patient: draft.data.get("relationship") for draft in drafts}
    assert found == {"probe/Patient/p1": "encounter", "probe/Patient/p2": None}


async def test_several_kinds_of_one_patient_make_one_event_with_what_any_of_them_shows(bench: Any) -> None:
    call = bench.call("search", "Observation")
    decision = call.decision
    assert isinstance(decision, Decision)
    touched = (
        Touched(patient="probe/Patient/p1", type="Observation", ids=("1",), count=1),
        Touched(patient="probe/Patient/p1", type="Encounter", ids=("2",), count=1, relationship="encounter"),
    )
    (draft,) = draft_events(call, Outcome(status=200, touched=touched), touched, time.time())
    assert draft.data["relationship"] == "encounter"
