"""Search over the ledger: filters, order, and pages whose cursor stays valid while events are added (AU-604)."""

from __future__ import annotations

import base64
import uuid
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import msgspec
from msgspec import Struct

from wardmesh_audit.event_schemas import CLASSES
from wardmesh_audit.ledger import Connection
from wardmesh_audit.projection import MALFORMED
from wardmesh_audit.query_args import Cursor, EventsArgs, Filters, cursor_of, limit_of, moment, pseudonym_of
from wardmesh_audit.query_sorts import SORTS
from wardmesh_common.errors import BadRequest, Gone

LONGEST_PERIOD = timedelta(days=31)
_SLACK = timedelta(days=1)  # event time and event id come from the same clock, so they lie close together
_FIELDS = "log_id, seq, event_id, occurred_at, recorded_at, event_type, patient_ref, leaf, leaf_hash"

_TYPES = (*CLASSES, MALFORMED)
# Filter -> column; all are equality.
_EQUAL = {
    "actor": "actor_id",
    "type": "event_type",
    "action": "action",
    "outcome": "outcome",
    "phase": "phase",
    "purpose": "purpose",
    "resource": "resource_type",
    "request": "request_id",
}


class Line(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event as the API gives it out. A malformed one shows only where it stands: its bytes may be anything."""

    cursor: str
    log: int
    index: int
    id: str
    recorded_at: datetime
    leaf_hash: str
    event: msgspec.Raw | None = None
    malformed: bool = False


class Page(Struct, frozen=True, kw_only=True):
    """`next` continues after the last line; "" at the end of what there is now. `types` is for whoever waits."""

    events: list[Line]
    next: str
    types: frozenset[str] = frozenset()


class Where:
    """Conditions with their values, in order."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.values: list[Any] = []

    def add(self, condition: str, *values: Any) -> None:
        """`{}` in the condition stands for each value in turn."""
        names = [f"${len(self.values) + n + 1}" for n in range(len(values))]
        self.parts.append(condition.format(*names))
        self.values += values

    def sql(self) -> str:
        return " and ".join(self.parts)


def where_of(args: Filters, tenant: str, patient: bytes | None) -> Where:
    """The conditions of a query; every one is limited to the tenant of who asks. Raises BadRequest."""
    if args.type and args.type not in _TYPES:
        raise BadRequest(f"Invalid type: one of {', '.join(_TYPES)}.")
    where = Where()
    where.add("log_id = {}", args.log)
    where.add("coalesce(tenant, 'default') = {}", tenant)
    for name, column in _EQUAL.items():
        value = getattr(args, name)
        if value:
            where.add(f"{column} = {{}}", value)
    if args.break_glass is not None:
        where.add("break_glass = {}", args.break_glass)
    if patient is not None:
        where.add("patient_ref = {}", patient)
    elif args.pseudonym:
        where.add("patient_ref = {}", pseudonym_of(args.pseudonym))
    since, until = moment(args.since, "from"), moment(args.until, "to")
    if since is not None:
        where.add("occurred_at >= {}", since)
        where.add("event_id >= {}", _id_at(since - _SLACK))
    if until is not None:
        where.add("occurred_at < {}", until)
        where.add("event_id < {}", _id_at(until + _SLACK))
    return where


async def page_of(conn: Connection, args: EventsArgs, tenant: str, patient: bytes | None = None) -> Page:
    """One page. Raises BadRequest, and Gone when the cursor lies where events were dropped."""
    limit = limit_of(args.limit)
    where = where_of(args, tenant, patient)
    if args.sort:
        return await _sorted_page(conn, args, where, limit)
    if args.cursor:
        cursor = cursor_of(args.cursor)
        if cursor.log != args.log:
            raise BadRequest("Invalid cursor: it belongs to another log.")
        if not args.newest_first:
            await check_kept(conn, cursor)
        where.add("seq < {}" if args.newest_first else "seq > {}", cursor.index)
    direction = "desc" if args.newest_first else "asc"
    query = f"select {_FIELDS} from event where {where.sql()} order by seq {direction} limit {limit + 1}"  # noqa: S608
    rows = await conn.fetch(query, *where.values)
    return _page(rows, limit, [str(Cursor(row["log_id"], row["seq"])) for row in rows])


async def page_between(
    conn: Connection, args: Filters, tenant: str, patient: bytes | None, first: int, end: int, limit: int
) -> Page:
    """Events with first <= index < end: what a follower has not seen yet."""
    where = where_of(args, tenant, patient)
    where.add("seq >= {} and seq < {}", first, end)
    query = f"select {_FIELDS} from event where {where.sql()} order by seq limit {limit + 1}"  # noqa: S608
    rows = await conn.fetch(query, *where.values)
    return _page(rows, limit, [str(Cursor(row["log_id"], row["seq"])) for row in rows])


async def check_kept(conn: Connection, cursor: Cursor) -> None:
    """Raises Gone with the minimum index when what follows the cursor was dropped by retention."""
    lowest = await conn.fetchval("select max(min_index) from retention_run where log_id = $1", cursor.log)
    if lowest and cursor.index + 1 < lowest:
        raise Gone(f"Events before index {lowest} of log {cursor.log} are not kept any more.")


async def _sorted_page(conn: Connection, args: EventsArgs, where: Where, limit: int) -> Page:
    since, until = moment(args.since, "from"), moment(args.until, "to")
    if since is None or until is None or not timedelta(0) < until - since <= LONGEST_PERIOD:
        raise BadRequest(f"To sort, give a period of at most {LONGEST_PERIOD.days} days with from and to.")
    down = args.sort.startswith("-")
    element = SORTS.get(args.sort.lstrip("-"))
    if element is None:
        raise BadRequest(f"Invalid sort: one of {', '.join(SORTS)}, with '-' in front for descending.")
    key = f"coalesce(({element})::text, '') collate \"C\""
    if args.cursor:
        where.add(f"({key}, seq) {'<' if down else '>'} ({{}}, {{}})", *_sorted_cursor(args.cursor))
    direction = "desc" if down else "asc"
    query = (
        f"select {_FIELDS}, {key} as sort_key from event where {where.sql()}"  # noqa: S608
        f" order by sort_key {direction}, seq {direction} limit {limit + 1}"
    )
    rows = await conn.fetch(query, *where.values)
    return _page(rows, limit, [_pack(row["sort_key"], row["seq"]) for row in rows])


def _page(rows: list[asyncpg.Record], limit: int, cursors: list[str]) -> Page:
    shown = rows[:limit]
    return Page(
        events=[line_of(row) for row in shown],
        next=cursors[limit - 1] if len(rows) > limit else "",
        types=frozenset(row["event_type"] for row in shown),
    )


def line_of(row: asyncpg.Record) -> Line:
    malformed = row["event_type"] == MALFORMED
    return Line(
        cursor=str(Cursor(row["log_id"], row["seq"])),
        log=row["log_id"],
        index=row["seq"],
        id=str(row["event_id"]),
        recorded_at=row["recorded_at"],
        leaf_hash=base64.b64encode(row["leaf_hash"]).decode(),
        event=None if malformed else msgspec.Raw(row["leaf"]),
        malformed=malformed,
    )


def _pack(key: str, index: int) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([key, index])).decode().rstrip("=")


def _sorted_cursor(text: str) -> tuple[str, int]:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=tuple[str, int])
    except (ValueError, msgspec.MsgspecError):
        raise BadRequest("Invalid cursor: it does not belong to a sorted query.") from None


def _id_at(instant: datetime) -> uuid.UUID:
    """The smallest UUIDv7 of an instant."""
    return uuid.UUID(int=max(0, int(instant.timestamp() * 1000)) << 80)
