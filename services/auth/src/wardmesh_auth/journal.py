"""Further records of one call: a sign-in that also opens a session, a renewal beside a read (FG-19)."""

from __future__ import annotations

import os
from typing import Any, Protocol

import msgspec

from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.errors import Problem
from wardmesh_common.happening import happening
from wardmesh_common.vocabulary import Interaction, Principal


class Records(Protocol):
    async def outcome(self, call: Call, outcome: Outcome) -> None: ...

    async def status(self, reason: str, facts: dict[str, Any] | None = None) -> None: ...


class Journal:
    """Each note is a record of its own: it raises AuditUnavailable when it could not be written (AR-3)."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def beside(self, call: Call, event: str, principal: Principal | None = None) -> None:
        """Something that happened on the way of this call."""
        noted = msgspec.structs.replace(
            call,
            id=os.urandom(16).hex(),
            performer="auth",
            interaction=Interaction.OPERATION,
            body=b"",
            entries=(),
            query="",
            principal=principal or call.principal,
        )
        await self._records.outcome(noted, Outcome(status=200, event=event))

    async def on_its_own(self, event: str, principal: Principal, platform: str, problem: Problem | None = None) -> None:
        """Something that many calls may wait for together: it belongs to none of them."""
        call = happening(event, performer="auth", platform=platform, principal=principal)
        status = problem.status if problem else 200
        await self._records.outcome(call, Outcome(status=status, event=event, problem=problem))

    async def status(self, reason: str, facts: dict[str, Any]) -> None:
        """Something this service did by itself; `facts` hold numbers and codes only."""
        await self._records.status(reason, facts)
