"""Events of what the ledger's own keepers do: an intent in the ledger before the deed, an outcome after it (AR-3)."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from wardmesh_audit.derived import Requester, derive, publish
from wardmesh_audit.ledger import Connection

_STORED_SECONDS = 30.0
_LOOK_SECONDS = 0.05


class NotRecorded(Exception):
    """The intent did not reach the ledger in time: the deed must not happen."""


class Deed(Struct, frozen=True, kw_only=True):
    """What is about to be done, by whom; facts hold numbers and codes only."""

    event_class: str  # retention or key
    action: str
    reason: str
    person: str
    facts: dict[str, Any]
    pseudonym: str = ""


class Deeds:
    """Records deeds through the stream like every other event and waits until they are in the ledger."""

    def __init__(self, nc: Requester, conn: Connection, log_id: int = 0) -> None:
        self._nc = nc
        self._conn = conn
        self._log_id = log_id

    async def intent(self, deed: Deed, number: str) -> uuid.UUID:
        """Its event id, once it is stored. Raises NotRecorded."""
        event_id = await self._publish(deed, number, "intent", "success", "intent", {})
        try:
            async with asyncio.timeout(_STORED_SECONDS):
                while not await self._stored(event_id):  # noqa: ASYNC110 - another process stores it
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise NotRecorded("the record did not reach the ledger; nothing was done") from None
        return event_id

    async def outcome(self, deed: Deed, number: str, code: str, reason: str, **facts: Any) -> None:
        await self._publish(deed, number, "outcome", code, reason, facts)

    async def _publish(
        self, deed: Deed, number: str, phase: str, code: str, reason: str, facts: dict[str, Any]
    ) -> uuid.UUID:
        data: dict[str, Any] = {
            "action": deed.action,
            "actor": {"id": deed.person, "type": "practitioner" if deed.person != "audit" else "service"},
            "facts": {"deed": deed.reason, **deed.facts, **facts},
            "outcome": {"code": code, "reason": reason},
            "phase": phase,
            "request": {"id": number, "method": "POST", "route": deed.reason},
        }
        if deed.pseudonym:
            data["patient"] = {"pseudonym": deed.pseudonym}
        event = derive(deed.event_class, f"{phase}\x1f{number}", datetime.now(UTC), data)
        await publish(self._nc, self._log_id, event)
        return event.event_id

    async def _stored(self, event_id: uuid.UUID) -> bool:
        found = await self._conn.fetchval(
            "select 1 from event where log_id = $1 and event_id = $2", self._log_id, event_id
        )
        return found is not None
