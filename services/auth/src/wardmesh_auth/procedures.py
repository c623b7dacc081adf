"""The station on `call.perform.auth`: our own operations, each a name, its arguments and who carries it out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_auth.refusals import InvalidRequest
from wardmesh_common.assertion import assert_pair
from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.errors import NotFound
from wardmesh_common.station import Hop

Carries = Callable[[Call, Any, Hop], Awaitable[Outcome]]
_MOST_BYTES = 64 * 1024


class Procedure(Struct, frozen=True):
    arguments: type[Struct]
    carry_out: Carries


class Procedures:
    """Handler of the station. It judges the decision again before anything happens (AR-5)."""

    def __init__(self, table: dict[str, Procedure]) -> None:
        self._table = table
        self._decoders = {name: msgspec.json.Decoder(known.arguments) for name, known in table.items()}

    async def __call__(self, call: Call, hop: Hop) -> Outcome:
        assert_pair(call)
        known = self._table.get(call.tool)
        if known is None:
            raise NotFound("there is no such procedure")
        body = await hop.body()
        try:
            if len(body) > _MOST_BYTES:
                raise ValueError
            arguments = self._decoders[call.tool].decode(body or b"{}")
        except (msgspec.DecodeError, ValueError, RecursionError):
            # The library's text may quote what was sent.
            raise InvalidRequest(f"the arguments of {call.tool} are not valid") from None
        return await known.carry_out(call, arguments, hop)
