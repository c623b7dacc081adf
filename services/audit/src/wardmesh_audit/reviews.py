"""The review queue: alerts and uses of break-glass that somebody has to look at, and what came of it."""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime
from typing import Any

import asyncpg
import msgspec
from msgspec import Struct

from wardmesh_audit.ledger import Connection
from wardmesh_audit.query_args import limit_of
from wardmesh_audit.report_files import table
from wardmesh_common.errors import BadRequest, Conflict, Denied, NotFound

_COLUMNS = (
    *("id", "kind", "status", "opened_at", "rule", "severity", "score", "actor", "patient", "cursor", "event_id"),
    *("facts", "outcome", "reviewer", "closed_at", "evidence", "title"),
)
OUTCOMES = ("appropriate", "inappropriate", "escalated", "false_positive")
_MOST_EVIDENCE = 4000


class ReviewsArgs(Struct, kw_only=True, forbid_unknown_fields=True):
    status: str = "open"  # open, closed or all
    limit: int = 100
    format: str = "json"


class CloseArgs(Struct, kw_only=True, forbid_unknown_fields=True):
    id: str
    outcome: str
    evidence: str

    def check(self) -> tuple[uuid.UUID, str]:
        """The id and the evidence as they are kept. Raises BadRequest."""
        review_id, evidence = _uuid(self.id), self.evidence.strip()
        if self.outcome not in OUTCOMES:
            raise BadRequest(f"Invalid outcome: one of {', '.join(OUTCOMES)}.")
        if not 0 < len(evidence) <= _MOST_EVIDENCE or "\x00" in evidence:
            raise BadRequest(f"The evidence says in 1 to {_MOST_EVIDENCE} characters what was looked at and found.")
        return review_id, evidence


class Review(Struct, frozen=True, kw_only=True):
    """One entry with the alert or the event that it is about."""

    id: uuid.UUID
    kind: str
    status: str
    opened_at: datetime
    rule: str
    title: str  # of the rule when it fired; "" of alerts that were raised before they had one
    severity: str
    score: float
    actor: str
    patient: str
    cursor: str  # of the event
    event_id: str
    facts: Any
    outcome: str
    evidence: str
    reviewer: str
    closed_at: datetime | None

    @property
    def evidence_digest(self) -> str:
        """Stands for the text in the ledger: whoever has the text can show that it is the one."""
        return hashlib.sha256(self.evidence.encode()).hexdigest()


class Reviews(Struct, frozen=True, kw_only=True):
    reviews: list[Review]


_QUERY = """
select r.*, a.rule, a.severity, a.score, a.facts, e.log_id, e.seq, e.event_id as about,
  coalesce(a.actor_id, e.actor_id) as actor, coalesce(a.patient_ref, e.patient_ref) as patient
from review r
left join alert a on a.id = r.alert_id
left join lateral (
  select * from event x where (r.event_id is not null and x.event_id = r.event_id)
    or (r.event_id is null and x.log_id = a.log_id and x.seq = a.seq) limit 1
) e on true
where {which} and coalesce(e.tenant, 'default') = $1
order by (r.status = 'closed'), coalesce(r.closed_at, r.opened_at) desc limit {limit}
"""


def written(found: Reviews | Review, form: str) -> bytes:
    """JSON, or CSV with one line for each review. Raises BadRequest."""
    if form == "json":
        return msgspec.json.encode(found)
    if form != "csv" or isinstance(found, Review):
        raise BadRequest("Invalid format: json or csv.")
    rows = [[_cell(getattr(review, name)) for name in _COLUMNS] for review in found.reviews]
    return table(list(_COLUMNS), rows)


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    if value is None or isinstance(value, str | uuid.UUID | float):
        return str(value or "")
    return msgspec.json.encode(value).decode()


async def list_reviews(conn: Connection, args: ReviewsArgs, tenant: str) -> Reviews:
    if args.status not in ("open", "closed", "all"):
        raise BadRequest("Invalid status: open, closed or all.")
    which = "true" if args.status == "all" else f"r.status = '{args.status}'"
    rows = await conn.fetch(_QUERY.format(which=which, limit=limit_of(args.limit)), tenant)
    return Reviews(reviews=[_review(row) for row in rows])


async def close_review(conn: Connection, args: CloseArgs, tenant: str, reviewer: str) -> Review:
    """Nobody reviews what he did himself. Closing again in the same words changes nothing, otherwise it is refused."""
    review_id, evidence = args.check()
    async with conn.transaction():
        await conn.fetchrow("select 1 from review where id = $1 for no key update", review_id)
        found = await conn.fetchrow(_QUERY.format(which="r.id = $2", limit=1), tenant, review_id)
        if found is None:
            raise NotFound("There is no such review.")
        if found["actor"] == reviewer:
            raise Denied("Access denied: nobody reviews what he did himself.")
        if found["status"] == "closed":
            same = (found["outcome"], found["evidence"], found["reviewer"]) == (args.outcome, evidence, reviewer)
            if not same:
                raise Conflict("This review is closed.")
            return _review(found)
        await conn.execute(
            "update review set status = 'closed', outcome = $2, evidence = $3, reviewer = $4,"
            " closed_at = clock_timestamp() where id = $1",
            review_id,
            args.outcome,
            evidence,
            reviewer,
        )
        done = await conn.fetchrow(_QUERY.format(which="r.id = $2", limit=1), tenant, review_id)
        assert done is not None
        return _review(done)


def _review(row: asyncpg.Record) -> Review:
    facts = msgspec.json.decode(row["facts"], type=dict[str, Any]) if row["facts"] else {}
    return Review(
        id=row["id"],
        kind=row["kind"],
        status=row["status"],
        opened_at=row["opened_at"],
        rule=row["rule"] or "",
        title=str(facts.pop("title", "")),
        severity=row["severity"] or "",
        score=row["score"] or 0.0,
        actor=row["actor"] or "",
        patient=row["patient"].hex() if row["patient"] else "",
        cursor=f"{row['log_id']}:{row['seq']}" if row["seq"] is not None else "",
        event_id=str(row["about"]) if row["about"] else "",
        facts=facts,
        outcome=row["outcome"] or "",
        evidence=row["evidence"] or "",
        reviewer=row["reviewer"] or "",
        closed_at=row["closed_at"],
    )


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise BadRequest("Invalid id: a UUID.") from None
