"""What the gateway is told of an outcome: nothing that is for the record only."""

from __future__ import annotations

from wardmesh_common.contracts import Call, Outcome, Reply


def reply_of(call: Call, outcome: Outcome, station: str) -> Reply:
    refused = call.principal if outcome.problem is not None and station == "policy" else None
    return Reply(
        call_id=call.id,
        status=outcome.status,
        media_type=outcome.media_type,
        headers=outcome.headers,
        problem=outcome.problem,
        truncated=outcome.truncated,
        masked=outcome.masked,
        withheld=outcome.withheld,
        decision_id=call.decision.id if call.decision else "",
        station=station,
        refused_id=refused.id if refused else "",
        refused_roles=refused.roles if refused else (),
    )
