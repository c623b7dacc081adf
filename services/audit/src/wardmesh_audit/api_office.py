"""The work of compliance as procedures: reviews, holds and suspensions, each with an intent before it (AR-3)."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import msgspec

from wardmesh_audit.pseudonyms import Pseudonyms
from wardmesh_audit.query_args import arguments
from wardmesh_audit.report_files import FORMATS
from wardmesh_audit.reviews import CloseArgs, ReviewsArgs, close_review, list_reviews, written
from wardmesh_audit.suspensions import SuspendArgs, suspend
from wardmesh_common.contracts import Call, Outcome, Touched
from wardmesh_common.vocabulary import Principal

Procedure = Callable[[Principal, bytes, Call], Awaitable[Outcome]]
RecordIntent = Callable[[Call, tuple[Touched, ...]], Awaitable[None]]


class Office:
    """Writes with the rights of `audit_officer`; the ledger itself is out of its reach."""

    def __init__(self, pool: asyncpg.Pool, pseudonyms: Pseudonyms, record_intent: RecordIntent) -> None:
        self._pool = pool
        self._pseudonyms = pseudonyms
        self._record_intent = record_intent

    def procedures(self) -> dict[str, Procedure]:
        return {
            "list_reviews": self.list_reviews,
            "close_review": self.close_review,
            "suspend_disclosures": self.suspend_disclosures,
        }

    async def list_reviews(self, principal: Principal, body: bytes, _call: Call) -> Outcome:
        args = arguments(body, ReviewsArgs)
        async with self._pool.acquire() as conn:
            found = await list_reviews(conn, args, principal.tenant)
        outcome = _answer(found, len(found.reviews))
        return msgspec.structs.replace(outcome, body=written(found, args.format), media_type=FORMATS[args.format])

    async def close_review(self, principal: Principal, body: bytes, call: Call) -> Outcome:
        args = arguments(body, CloseArgs)
        args.check()
        await self._record_intent(call, ())
        async with self._pool.acquire() as conn:
            review = await close_review(conn, args, principal.tenant, principal.id)
        outcome = _answer(review, 1, event="review.closed")
        # The queue is a table; what it says of a closed review can be checked against the ledger.
        outcome.facts = {
            "review": str(review.id),
            "review_outcome": review.outcome,
            "rule": review.rule,
            "about_event": review.event_id,
            "evidence_sha256": review.evidence_digest,
        }
        outcome.sealed = {"evidence": review.evidence}
        return outcome

    async def suspend_disclosures(self, principal: Principal, body: bytes, call: Call) -> Outcome:
        args = arguments(body, SuspendArgs)
        await self._record_intent(call, (Touched(patient=args.patient, type="AuditEvent"),))
        pseudonym = await self._pseudonyms.find(principal.tenant, args.patient)
        async with self._pool.acquire() as conn:
            made = await suspend(conn, args, pseudonym, principal.id, uuid.UUID(call.id))
        return _answer(made, 1, args.patient, event="disclosures.suspended", status=201)


def _answer(body: Any, count: int, patient: str = "", *, event: str = "", status: int = 200) -> Outcome:
    return Outcome(
        status=status,
        body=msgspec.json.encode(body),
        media_type="application/json",
        touched=(Touched(patient=patient, type="AuditEvent", count=count),),
        event=event,
    )
