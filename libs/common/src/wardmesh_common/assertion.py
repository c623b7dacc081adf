"""The performer checks the Decision again: broker permissions stop attackers, this stops our own mistakes (AR-5)."""

from __future__ import annotations

import time

from wardmesh_common.contracts import Call
from wardmesh_common.errors import Denied
from wardmesh_common.vocabulary import Decision, Principal


def assert_pair(call: Call, now: float | None = None) -> tuple[Principal, Decision]:
    """Raises Denied unless an unexpired, positive Decision covers exactly this call."""
    decision, principal = call.decision, call.principal
    if principal is None or decision is None:
        raise Denied("The call carries no decision.")
    if not decision.allowed:
        raise Denied("The decision refuses this call.")
    if decision.covers != call.digest():
        raise Denied("The decision was made for another call.")
    # `sent_at` is policy's own clock, like `expires`: a skewed clock here must not decide (bus.md §3).
    if decision.expires <= (now or call.sent_at or time.time()):
        raise Denied("The decision has expired.")
    # An operation of ours asks nothing of a platform, so auth stamps an empty grant.
    if call.grant is not None and call.grant.platform != ("" if call.procedure else call.platform):
        raise Denied("The grant is for another platform.")
    return principal, decision
