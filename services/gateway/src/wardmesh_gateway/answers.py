"""What a call gave in the end: the body of a good answer with the facts that a face shows beside it, or its Problem."""

from __future__ import annotations

from msgspec import Struct

from wardmesh_common.asking import Refused
from wardmesh_gateway.calls import Delivers
from wardmesh_gateway.problem import of_reply


class Answered(Struct, frozen=True, kw_only=True):
    """`platform` answered; `instead_of` names the one that was asked when it has a stand-in (FG-27)."""

    body: bytes
    call_id: str = ""  # what the ledger calls it; "" when no call was made
    platform: str = ""
    instead_of: str = ""
    status: int = 200


async def success(delivery: Delivers) -> bytes:
    """The body of a good answer; anything else is raised as its Problem."""
    body = await delivery.body()
    problem = of_reply(delivery.reply, body)
    if problem is not None:
        raise Refused(problem, delivery.reply.call_id)
    return body
