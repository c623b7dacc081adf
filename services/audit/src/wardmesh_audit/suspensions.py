"""Suspending the accounting of certain disclosures of one patient, as an authority may ask (45 CFR 164.528(a)(2))."""

from __future__ import annotations

import uuid
from datetime import datetime

import msgspec
from msgspec import Struct

from wardmesh_audit.ledger import Connection
from wardmesh_audit.query_args import moment
from wardmesh_common.errors import BadRequest, NotFound

_MOST_REASON = 1000


class SuspendArgs(Struct, kw_only=True, forbid_unknown_fields=True):
    patient: str
    reason: str
    since: str = msgspec.field(name="from")
    until: str = msgspec.field(name="to")


class Suspension(Struct, frozen=True, kw_only=True):
    id: uuid.UUID
    suspended_from: datetime
    suspended_until: datetime


async def suspend(
    conn: Connection, args: SuspendArgs, pseudonym: bytes | None, placed_by: str, suspension_id: uuid.UUID
) -> Suspension:
    """Asking twice under one id is one suspension."""
    since, until = moment(args.since, "from"), moment(args.until, "to")
    if since is None or until is None or until <= since:
        raise BadRequest("A suspension needs a period with from and to.")
    if not 0 < len(args.reason) <= _MOST_REASON or "\x00" in args.reason:
        raise BadRequest(f"A suspension needs a reason of 1 to {_MOST_REASON} characters.")
    if pseudonym is None:
        raise NotFound("Nothing is recorded about this patient.")
    await conn.execute(
        "insert into disclosure_suspension (id, patient_ref, suspended_from, suspended_until, reason, placed_by)"
        " values ($1, $2, $3, $4, $5, $6) on conflict (id) do nothing",
        suspension_id,
        pseudonym,
        since,
        until,
        args.reason,
        placed_by,
    )
    return Suspension(id=suspension_id, suspended_from=since, suspended_until=until)
