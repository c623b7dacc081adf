"""Who accessed a patient's record, and what one user did: every event once, each line with its proof (AU-606)."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from wardmesh_audit.ledger import Connection
from wardmesh_audit.query_args import ReportArgs, limit_of, moment
from wardmesh_audit.report_lines import FIELDS, ReportLine, proven_lines
from wardmesh_common.errors import BadRequest

# What counts as access to a record; reading the ledger about it does not.
ACCESS_TYPES = ("access", "search", "write", "export", "disclosure", "break_glass")
_FIRST = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(9998, 1, 1, tzinfo=UTC)

# An intent whose outcome is there says nothing more; one without stands for itself.
_ENDED = """
(phase = 'intent' and exists (select 1 from event o where {column} = $1 and o.occurred_at >= e.occurred_at
  and o.occurred_at < e.occurred_at + interval '1 hour' and o.request_id = e.request_id and o.phase = 'outcome'))
"""
_QUERY = """
select {fields} from event e where {column} = $1 and coalesce(tenant, 'default') = $2 and occurred_at >= $3
  and occurred_at < $4 and ($5::text[] is null or event_type = any($5)) and event_type <> 'malformed'
  and not {ended} and (occurred_at, log_id, seq) > ($6, $7::smallint, $8)
order by occurred_at, log_id, seq limit $9
"""
BY_PATIENT = _QUERY.format(fields=FIELDS, column="e.patient_ref", ended=_ENDED.format(column="o.patient_ref"))
BY_ACTOR = _QUERY.format(fields=FIELDS, column="e.actor_id", ended=_ENDED.format(column="o.actor_id"))


class Report(Struct, frozen=True, kw_only=True):
    """`checkpoints` holds the signed note of each log that the proofs of `lines` lead to."""

    report: str
    about: str  # pseudonym of the patient or id of the actor; "" when nothing is known
    since: str = msgspec.field(name="from")
    until: str = msgspec.field(name="to")
    made_at: datetime
    checkpoints: dict[int, str]
    lines: list[ReportLine]
    next: str = ""


async def access_report(conn: Connection, args: ReportArgs, tenant: str, pseudonym: bytes | None) -> Report:
    """A stranger's report is an empty one: it does not tell whether a person is known here."""
    if pseudonym is None:
        return Report(
            report="access", about="", since=args.since, until=args.until, made_at=_now(), checkpoints={}, lines=[]
        )
    return await _report(conn, args, tenant, "access", pseudonym.hex(), (BY_PATIENT, pseudonym, ACCESS_TYPES))


async def activity_report(conn: Connection, args: ReportArgs, tenant: str) -> Report:
    if not args.actor:
        raise BadRequest("The report needs an actor.")
    return await _report(conn, args, tenant, "activity", args.actor, (BY_ACTOR, args.actor, None))


async def _report(
    conn: Connection,
    args: ReportArgs,
    tenant: str,
    kind: str,
    about: str,
    what: tuple[str, bytes | str, tuple[str, ...] | None],
) -> Report:
    query, subject, types = what
    limit = limit_of(args.limit)
    since, until = moment(args.since, "from") or _FIRST, moment(args.until, "to") or _LAST
    after = _after(args.cursor)
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        rows = await conn.fetch(query, subject, tenant, since, until, types, *after, limit + 1)
        lines, checkpoints = await proven_lines(conn, rows[:limit])
    following = ""
    if len(rows) > limit:
        last = rows[limit - 1]
        key = msgspec.json.encode([last["occurred_at"], last["log_id"], last["seq"]])
        following = base64.urlsafe_b64encode(key).decode().rstrip("=")
    return Report(
        report=kind,
        about=about,
        since=args.since,
        until=args.until,
        made_at=_now(),
        checkpoints=checkpoints,
        lines=lines,
        next=following,
    )


def _after(cursor: str) -> tuple[datetime, int, int]:
    if not cursor:
        return _FIRST, -1, -1
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        return msgspec.json.decode(raw, type=tuple[datetime, int, int])
    except (ValueError, msgspec.MsgspecError):
        raise BadRequest("Invalid cursor: it does not belong to a report.") from None


def _now() -> datetime:
    return datetime.now(UTC)
