"""Crypto-shredding: destroying the key of one person makes what is sealed about them unreadable, proofs stay valid."""

from __future__ import annotations

import asyncio
import os
import uuid
from datetime import datetime

from msgspec import Struct

from wardmesh_audit import holds
from wardmesh_audit.deeds import Deed, Deeds
from wardmesh_audit.ledger import Connection
from wardmesh_common.errors import Conflict, NotFound
from wardmesh_common.record_keys import TTL_SECONDS

_KEY = "select kid, pseudonym, wrapped is null as gone from subject_key where handle = $1"
_FACTS = """
select count(*) as events, min(occurred_at) as first_at, max(occurred_at) as last_at,
  count(*) filter (where occurred_at > now() - make_interval(years => $2)) as due
from event where patient_ref = $1
"""
_DESTROY = """
update subject_key set wrapped = null, handle = $2, destroyed_at = clock_timestamp()
where handle = $1 and wrapped is not null
"""


class Plan(Struct, frozen=True, kw_only=True):
    """What shredding one subject would do; `kid` and `pseudonym` stay afterwards, nothing leads to them any more."""

    kid: str
    pseudonym: str
    events: int
    first_at: datetime | None
    last_at: datetime | None
    holds: tuple[uuid.UUID, ...]
    retained: int  # events that retention still obliges us to keep readable

    @property
    def obstacle(self) -> str:
        if self.holds:
            return "a legal hold covers this patient"
        if self.retained:
            return "the duty to retain overrides erasure"
        return ""


class Shredded(Struct, frozen=True, kw_only=True):
    plan: Plan
    effective_after_seconds: float  # for so long a station may still open what it has read before


class Shredder:
    """Works with `key_shredder` on the key database and with `audit_officer` on the ledger."""

    def __init__(
        self, keys: Connection, ledger: Connection, deeds: Deeds, *, cache_seconds: float = TTL_SECONDS
    ) -> None:
        self._keys = keys
        self._ledger = ledger
        self._deeds = deeds
        self._cache = cache_seconds

    async def plan(self, handle: bytes) -> Plan:
        """What `--dry-run` shows. Raises NotFound when there is no key for this subject."""
        row = await self._keys.fetchrow(_KEY, handle)
        if row is None or row["gone"]:
            raise NotFound("There is no key of this subject.")
        years: int | None = await self._ledger.fetchval("select max(years) from retention_policy")
        facts = await self._ledger.fetchrow(_FACTS, row["pseudonym"], years or 10)
        assert facts is not None, "an aggregate always has a row"
        return Plan(
            kid=row["kid"].hex(),
            pseudonym=row["pseudonym"].hex(),
            events=facts["events"],
            first_at=facts["first_at"],
            last_at=facts["last_at"],
            holds=tuple(await holds.blocking(self._ledger, row["pseudonym"])),
            retained=facts["due"],
        )

    async def shred(self, handle: bytes, person: str, *, basis: str = "", wait: bool = True) -> Shredded:
        """Destroys the key; returns when no station can hold a copy any more, or at once when told not to wait.

        `basis` is the code of the legal ground that lifts the duty to retain. Raises NotFound, or Conflict when a
        hold or that duty forbids it.
        """
        plan = await self.plan(handle)
        if plan.obstacle and not (basis and not plan.holds):
            raise Conflict(f"Not shredded: {plan.obstacle}.")
        number = uuid.uuid4().hex
        facts = {"kid": plan.kid, "events": plan.events, "basis": basis}
        deed = Deed(
            event_class="key", action="key", reason="subject_shred", person=person, facts=facts,
            pseudonym=plan.pseudonym,
        )  # fmt: skip
        await self._deeds.intent(deed, number)
        if late := await holds.blocking(self._ledger, bytes.fromhex(plan.pseudonym)):
            await self._deeds.outcome(deed, number, "denied", "legal_hold", holds=len(late))
            raise Conflict("Not shredded: a legal hold covers this patient.")
        done = await self._keys.execute(_DESTROY, handle, os.urandom(32))
        if done != "UPDATE 1":
            await self._deeds.outcome(deed, number, "error", "not_found")
            raise NotFound("There is no key of this subject.")
        if wait:
            await asyncio.sleep(self._cache)
        if await self._keys.fetchval("select count(*) from subject_key where kid = $1 and wrapped is not null",
                                     bytes.fromhex(plan.kid)):  # fmt: skip
            await self._deeds.outcome(deed, number, "error", "still_readable")
            raise Conflict("Not shredded: the key is still there.")
        left = 0.0 if wait else self._cache
        await self._deeds.outcome(deed, number, "success", "subject_shredded", effective_after_seconds=left)
        return Shredded(plan=plan, effective_after_seconds=left)
