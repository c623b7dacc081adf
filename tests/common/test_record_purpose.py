"""A refused access says what it was asked for, an allowed one what it was granted for; the outcome tells them apart."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from audit_world import make_call
from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.errors import Denied, Problem, WardmeshError
from wardmesh_common.leaf import draft_events
from wardmesh_common.record_class import GLASS_REFUSED
from wardmesh_common.station import outcome_of
from wardmesh_common.vocabulary import Decision, Emergency, Interaction, Principal

URGENT = Emergency(id="e1", platform="store", patient="p1", reason_code="other", reason="r", expires=9e9)


class ShownInVain(Denied):
    event = GLASS_REFUSED


def decided(purpose: str, *, allowed: bool) -> Decision:
    return Decision(
        id="d", allowed=allowed, reason="r", policy_version="v1", covers="x", expires=0, rule="", purpose=purpose
    )


def said(call: Call, outcome: Outcome) -> dict[str, Any]:
    (draft,) = draft_events(call, outcome, (), time.time())
    return draft.data


@pytest.mark.parametrize("error", [Denied("no"), None], ids=["refused", "allowed"])
def test_the_purpose_of_the_decision_is_in_the_record_whether_it_allowed_or_refused(error: Denied | None) -> None:
    call = make_call()
    call.decision = decided("HPAYMT", allowed=error is None)
    data = said(call, outcome_of(error) if error else Outcome(status=200))
    assert data["purpose_of_use"] == "HPAYMT"
    assert data["outcome"]["code"] == ("denied" if error else "success")
    assert data["policy"]["decision"] == ("deny" if error else "allow")


def test_what_policy_never_saw_has_no_purpose_that_nobody_stated() -> None:
    call = make_call()
    call.decision = None
    refused = Outcome(status=401, problem=Problem(code="sign_in_required", status=401, detail="x"))
    assert "purpose_of_use" not in said(call, refused)


@pytest.mark.parametrize("error", [ShownInVain("over"), Denied("not under a pass")], ids=["pass", "policy"])
def test_who_shows_a_pass_asks_for_an_emergency_also_when_it_is_refused(error: WardmeshError) -> None:
    call = make_call()
    call.decision = None
    if not isinstance(error, ShownInVain):
        call.emergency, call.decision = URGENT, decided("BTG", allowed=False)
    data = said(call, outcome_of(error))
    assert data["purpose_of_use"] == "BTG" and data["outcome"]["code"] == "denied"
    assert ("break_glass" in data) == (call.emergency is not None), "a pass that does not hold was not used"


def test_an_opening_that_policy_refuses_was_for_an_emergency_and_other_procedures_treat_nobody() -> None:
    call = msgspec.structs.replace(make_call(interaction=Interaction.OPERATION), performer="auth")
    call.principal, call.decision = Principal(id="i|clerk", roles=("Billing",)), decided("", allowed=False)
    for tool, purpose in (("open_break_glass", "BTG"), ("start_auth", None)):
        call.tool = tool
        assert said(call, outcome_of(Denied("no"))).get("purpose_of_use") == purpose
