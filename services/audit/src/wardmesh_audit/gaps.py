"""Finds what producers have counted and the ledger does not hold: missing numbers, and epochs that never ended."""

from __future__ import annotations

import uuid
from datetime import datetime

import asyncpg
from msgspec import Struct

from wardmesh_audit.ledger import Connection

SILENT_SECONDS = 120.0
MISSING_SECONDS = 60.0  # longer than a redelivery takes
_RANGES = 100

_EPOCHS = """
select log_id, producer, epoch, last_seq, seen, closed, first_index, last_index, behind_since,
  greatest(last_at, alive_at) as heard_at,
  not closed and greatest(last_at, alive_at) < clock_timestamp() - $2 * interval '1 second' as silent
from producer_seq where ($1::smallint is null or log_id = $1) and ($4::timestamptz is null or last_at >= $4)
  and ((not closed and greatest(last_at, alive_at) < clock_timestamp() - $2 * interval '1 second')
    or behind_since < clock_timestamp() - $3 * interval '1 second')
order by log_id, first_index
"""

_NUMBERS = """
with numbers as (
  select producer_seq as n from event
  where log_id = $1 and seq >= $2 and seq <= $3 and epoch = $4 and producer = $5
), steps as (select n, lag(n, 1, -1::bigint) over (order by n) as before from numbers)
select before + 1 as first, n - 1 as last, n = before as again from steps
where n > before + 1 or n = before order by n limit $6
"""


class Gap(Struct, frozen=True, kw_only=True):
    """One fault of one producer epoch. `ranges` are the missing (or repeated) numbers, first and last."""

    log: int
    producer: str
    epoch: str
    kind: str  # missing: numbers below last_seq; open: it ended without saying so; repeated: a number came twice
    last_seq: int
    since: datetime
    ranges: tuple[tuple[int, int], ...] = ()


async def find(
    conn: Connection,
    *,
    log_id: int | None = None,
    since: datetime | None = None,
    silent_seconds: float = SILENT_SECONDS,
    missing_seconds: float = MISSING_SECONDS,
) -> list[Gap]:
    """All gaps, oldest epoch first; of epochs heard of after `since` when it is given."""
    found: list[Gap] = []
    for row in await conn.fetch(_EPOCHS, log_id, silent_seconds, missing_seconds, since):
        if row["behind_since"] is not None:
            found += await _numbers(conn, row)
        if row["silent"]:
            # What it counted after its last record is unknown: that is the point of reporting it.
            found.append(_gap(row, "open", row["heard_at"]))
    return found


async def _numbers(conn: Connection, row: asyncpg.Record) -> list[Gap]:
    """The counters say that something is wrong; the rows say what. They are right: an old writer counts nothing."""
    rows = await conn.fetch(
        _NUMBERS, row["log_id"], row["first_index"], row["last_index"], row["epoch"], row["producer"], _RANGES
    )
    missing = tuple((r["first"], r["last"]) for r in rows if not r["again"])
    again = tuple((r["last"] + 1, r["last"] + 1) for r in rows if r["again"])
    found: list[Gap] = []
    if missing:
        found.append(_gap(row, "missing", row["behind_since"], missing))
    if again:
        found.append(_gap(row, "repeated", row["behind_since"], again))
    return found


def _gap(row: asyncpg.Record, kind: str, since: datetime, ranges: tuple[tuple[int, int], ...] = ()) -> Gap:
    epoch: uuid.UUID = row["epoch"]
    return Gap(
        log=row["log_id"],
        producer=row["producer"],
        epoch=str(epoch),
        kind=kind,
        last_seq=row["last_seq"],
        since=since,
        ranges=ranges,
    )
