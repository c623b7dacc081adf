"""The accounting of disclosures of one patient: content items, exclusions, recurring ones summarised (AU-607)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
from msgspec import Struct

from wardmesh_audit.disclosure_rules import Disclosed, accountable, withheld_now
from wardmesh_audit.ledger import Connection
from wardmesh_audit.query_args import ReportArgs, moment
from wardmesh_audit.report_lines import FIELDS, ReportLine, proven_lines

MOST = 5000
SEALED, ERASED = "sealed", "erased"

Open = Callable[[bytes], Awaitable[dict[str, Any] | None]]

_QUERY = f"""
select {FIELDS} from event where patient_ref = $1 and coalesce(tenant, 'default') = $2 and event_type = 'disclosure'
  and phase = 'outcome' and outcome = 'success' and occurred_at >= $3 and occurred_at < $4
order by occurred_at, log_id, seq limit {MOST}
"""  # noqa: S608
_SUSPENDED = """
select exists (select 1 from disclosure_suspension
  where patient_ref = $1 and suspended_from <= $2 and suspended_until > $2)
"""
_leaves = msgspec.json.Decoder(dict[str, Any])


class Disclosure(Struct, frozen=True, kw_only=True):
    """One entry; a recurring one stands for `times` of them between `date` and `last`."""

    date: datetime
    recipient: str
    address: str
    description: str
    purpose: str  # the stated basis, or a reference to the written request
    request: str
    part2: bool
    recurring: bool
    times: int = 1
    last: datetime | None = None
    every_days: float | None = None
    line: ReportLine  # of the first one
    repeats: list[str] = []  # cursors of the others


class Accounting(Struct, frozen=True, kw_only=True):
    report: str = "disclosures"
    about: str
    since: str = msgspec.field(name="from")
    until: str = msgspec.field(name="to")
    made_at: datetime
    checkpoints: dict[int, str]
    disclosures: list[Disclosure]
    # Only for those who keep the account: telling the patient would undo the suspension.
    suspended: int | None = None


async def accounting(
    conn: Connection, args: ReportArgs, tenant: str, pseudonym: bytes | None, open_seal: Open | None, *, own: bool
) -> Accounting:
    """`open_seal` None: recipients stay sealed. `own`: the patient asks, so nothing hints at a suspension."""
    now = datetime.now(UTC)
    since, until = moment(args.since, "from"), moment(args.until, "to") or now
    first = since or datetime(1970, 1, 1, tzinfo=UTC)
    rows: list[asyncpg.Record] = []
    lines: list[ReportLine] = []
    checkpoints: dict[int, str] = {}
    suspended = False
    if pseudonym is not None:
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            rows = await conn.fetch(_QUERY, pseudonym, tenant, first, until)
            rows = [row for row in rows if accountable(disclosed(row), now)]
            suspended = bool(await conn.fetchval(_SUSPENDED, pseudonym, now))
            lines, checkpoints = await proven_lines(conn, rows)
    entries: list[Disclosure] = []
    hidden = 0
    for row, line in zip(rows, lines, strict=True):
        if withheld_now(disclosed(row), suspended):
            hidden += 1
            continue
        entries.append(_entry(row, line, await _content(row["leaf"], open_seal)))
    return Accounting(
        about=pseudonym.hex() if pseudonym else "",
        since=args.since,
        until=args.until,
        made_at=now,
        checkpoints=checkpoints,
        disclosures=summarised(entries),
        suspended=None if own else hidden,
    )


def disclosed(row: asyncpg.Record) -> Disclosed:
    data: dict[str, Any] = _leaves.decode(row["leaf"])["data"]
    facts = data.get("disclosure") or {}
    return Disclosed(
        at=row["occurred_at"],
        legal_basis=facts.get("legal_basis") or "",
        part2="part2" in ((data.get("resource") or {}).get("labels") or ()),
        with_consent=bool(data.get("consent_ref")),
        through_ehr=bool(facts.get("ehr")),
    )


async def _content(leaf: bytes, open_seal: Open | None) -> dict[str, str]:
    if open_seal is None:
        return dict.fromkeys(("recipient", "address", "description"), SEALED)
    opened = await open_seal(leaf)
    if opened is None:
        return dict.fromkeys(("recipient", "address", "description"), ERASED)
    return {name: str(opened.get(name, "")) for name in ("recipient", "address", "description")}


def _entry(row: asyncpg.Record, line: ReportLine, content: dict[str, str]) -> Disclosure:
    item = disclosed(row)
    facts = _leaves.decode(row["leaf"])["data"].get("disclosure") or {}
    return Disclosure(
        date=item.at,
        purpose=item.legal_basis,
        request=str(facts.get("request_ref") or ""),
        part2=item.part2,
        recurring=bool(facts.get("recurring")),
        line=line,
        recipient=content["recipient"],
        address=content["address"],
        description=content["description"],
    )


def summarised(entries: list[Disclosure]) -> list[Disclosure]:
    """Recurring ones to one recipient for one purpose become one: the first in full, how often, and the last."""
    kept: list[Disclosure] = []
    series: dict[tuple[str, ...], list[Disclosure]] = {}
    for entry in entries:
        if not entry.recurring:
            kept.append(entry)
            continue
        series.setdefault((entry.recipient, entry.address, entry.purpose, entry.request), []).append(entry)
    for group in series.values():
        first, last = group[0], group[-1]
        days = (last.date - first.date).total_seconds() / 86400
        kept.append(
            msgspec.structs.replace(
                first,
                times=len(group),
                last=last.date if len(group) > 1 else None,
                every_days=round(days / (len(group) - 1), 2) if len(group) > 1 else None,
                repeats=[entry.line.cursor for entry in group[1:]],
            )
        )
    return sorted(kept, key=lambda entry: entry.date)
