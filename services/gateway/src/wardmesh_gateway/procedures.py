"""An operation of ours (sign-in, audit) as a call: a name and a JSON object of arguments through the one door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from wardmesh_common.asking import Refused
from wardmesh_common.vocabulary import Face, Interaction
from wardmesh_gateway.answers import Answered
from wardmesh_gateway.caller import Visit
from wardmesh_gateway.calls import Door, Wanted

JSON = "application/json"


class Procedures:
    """Policy judges them, the performer records them, like any other call."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def run(
        self,
        performer: str,
        name: str,
        arguments: Mapping[str, Any],
        visit: Visit,
        face: Face,
        *,
        scope: str = "",
        anyone: bool = False,
        traceparent: str = "",
    ) -> Answered:
        """Raises the Problem of a refusal; `status` is for answers that are pages, a failed sign-in's for instance.

        `arguments["platform_id"]` is the id of a platform that exists.
        """
        wanted = Wanted(
            tool=name,
            interaction=Interaction.OPERATION,
            performer=performer,
            body=msgspec.json.encode(arguments),
            media_type=JSON,
            scope=scope,
            anyone=anyone,
        )
        platform = str(arguments.get("platform_id", ""))
        delivery = await self._door.proceed(wanted, platform, visit, face, traceparent=traceparent)
        reply = delivery.reply
        if reply.problem is not None:
            raise Refused(reply.problem, reply.call_id)
        return Answered(body=await delivery.body(), call_id=reply.call_id, platform=platform, status=reply.status)
