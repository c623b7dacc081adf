"""The written reason of an emergency access is sealed for the one patient whom it is about."""

from __future__ import annotations

import time

import pytest

from audit_world import make_call
from wardmesh_common.contracts import Outcome, Touched
from wardmesh_common.leaf import draft_events
from wardmesh_common.vocabulary import Emergency, Interaction

REASON = "brought in by ambulance"


@pytest.mark.requirement("B-14")
def test_the_reason_stands_under_the_key_of_its_patient_and_under_no_other() -> None:
    call = make_call(interaction=Interaction.SEARCH, patient="")
    call.emergency = Emergency(
        id="e1", platform="store", patient="p9", reason_code="unconscious", reason=REASON, expires=9e9
    )
    touched = (
        Touched(patient="store/Patient/p9", type="Appointment", ids=("a1",), count=1),
        Touched(patient="store/Patient/p8", type="Appointment", ids=("a1",), count=1),  # one visit of two people
        Touched(patient="", type="Practitioner", ids=("d1",), count=1),  # sealed for the whole hospital
    )
    drafts = draft_events(call, Outcome(status=200, touched=touched), touched, time.time())
    assert {draft.patient: draft.secrets.get("break_glass_reason") for draft in drafts} == {
        "store/Patient/p9": REASON,
        "store/Patient/p8": None,
        "": None,
    }
    assert {draft.data["break_glass"]["id"] for draft in drafts} == {"e1"}, "each says under what it was read"
    (intent,) = draft_events(call, None, (), time.time())
    assert (intent.patient, intent.secrets["break_glass_reason"]) == ("store/Patient/p9", REASON)
