"""Legal holds as procedures: place, release by two persons, list; each act is recorded before and after (AR-3)."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import msgspec
from msgspec import Struct

from wardmesh_audit import holds
from wardmesh_audit.pseudonyms import Pseudonyms
from wardmesh_audit.query_args import arguments, moment, pseudonym_of
from wardmesh_common.contracts import Call, Outcome, Touched
from wardmesh_common.errors import BadRequest, NotFound
from wardmesh_common.vocabulary import Principal

Procedure = Callable[[Principal, bytes, Call], Awaitable[Outcome]]
RecordIntent = Callable[[Call, tuple[Touched, ...]], Awaitable[None]]


class PlaceArgs(Struct, kw_only=True, forbid_unknown_fields=True):
    """What is said must all match. `patient` is a reference, `pseudonym` what events show instead."""

    reason: str
    patient: str = ""
    pseudonym: str = ""
    actor: str = ""
    since: str = msgspec.field(default="", name="from")
    until: str = msgspec.field(default="", name="to")


class ReleaseArgs(Struct, kw_only=True, forbid_unknown_fields=True):
    id: str


class ListArgs(Struct, kw_only=True, forbid_unknown_fields=True):
    released: bool = False  # also those that are over


class Holds:
    """Works with the rights of `audit_officer`. Somebody of one tenant has to do with the holds of that tenant only."""

    def __init__(self, pool: asyncpg.Pool, pseudonyms: Pseudonyms, record_intent: RecordIntent) -> None:
        self._pool = pool
        self._pseudonyms = pseudonyms
        self._record_intent = record_intent

    def procedures(self) -> dict[str, Procedure]:
        return {"place_hold": self.place, "release_hold": self.release, "list_holds": self.listed}

    async def place(self, principal: Principal, body: bytes, call: Call) -> Outcome:
        args = arguments(body, PlaceArgs)
        scope = holds.Scope(
            tenant=principal.tenant if principal.tenant != "default" else None,
            patient=await self._pseudonym(principal, args),
            actor=args.actor or None,
            since=moment(args.since, "from"),
            until=moment(args.until, "to"),
        )
        await self._record_intent(call, (Touched(patient=args.patient, type="AuditEvent"),))
        async with self._pool.acquire() as conn:
            hold = await holds.place(conn, scope, args.reason, principal.id, uuid.UUID(call.id))
        return _answer(hold, event="hold.placed", status=201, patient=args.patient)

    async def release(self, principal: Principal, body: bytes, call: Call) -> Outcome:
        try:
            hold_id = uuid.UUID(arguments(body, ReleaseArgs).id)
        except ValueError:
            raise BadRequest("Invalid id: a UUID.") from None
        await self._record_intent(call, ())
        async with self._pool.acquire() as conn:
            await self._own(conn, principal, hold_id)
            hold = await holds.release(conn, hold_id, principal.id)
        return _answer(hold, event="hold.released" if not hold.active else "hold.release_asked")

    async def listed(self, principal: Principal, body: bytes, _call: Call) -> Outcome:
        args = arguments(body, ListArgs)
        async with self._pool.acquire() as conn:
            found = await holds.listed(conn, released=args.released)
        return _answer({"holds": [hold for hold in found if _of(hold, principal)]})

    async def _own(self, conn: Any, principal: Principal, hold_id: uuid.UUID) -> None:
        known = {hold.id for hold in await holds.listed(conn, released=True) if _of(hold, principal)}
        if hold_id not in known:
            raise NotFound("There is no such hold.")

    async def _pseudonym(self, principal: Principal, args: PlaceArgs) -> str | None:
        if args.pseudonym:
            return pseudonym_of(args.pseudonym).hex()
        if not args.patient:
            return None
        found = await self._pseudonyms.find(principal.tenant, args.patient)
        if found is None:
            raise NotFound("Nothing is recorded about this patient.")
        return found.hex()


def _of(hold: holds.Hold, principal: Principal) -> bool:
    return principal.tenant in ("default", hold.scope.tenant)


def _answer(body: Any, *, event: str = "", status: int = 200, patient: str = "") -> Outcome:
    touched = (Touched(patient=patient, type="AuditEvent"),)
    body = msgspec.json.encode(body)
    return Outcome(status=status, body=body, media_type="application/json", touched=touched, event=event)
