"""What is recorded although no call travelled: refusals at the edge, work that many calls wait for (FG-19)."""

from __future__ import annotations

import os
import time

from wardmesh_common.contracts import Call, Caller
from wardmesh_common.vocabulary import Face, Interaction, Principal


def happening(
    event: str,
    *,
    performer: str,
    platform: str = "",
    interaction: Interaction = Interaction.OPERATION,
    face: Face = Face.REST,
    caller: Caller | None = None,
    principal: Principal | None = None,
) -> Call:
    """The subject of one record, never sent anywhere. `caller` must hold no credential."""
    now, name = time.time(), os.urandom(16).hex()
    return Call(
        id=name,
        reply_to="",
        face=face,
        tool=event,
        interaction=interaction,
        performer=performer,
        platform=platform,
        deadline=now,
        received_at=now,
        caller=caller or Caller(),
        principal=principal,
        traceparent=f"00-{name}-{name[:16]}-01",
    )
