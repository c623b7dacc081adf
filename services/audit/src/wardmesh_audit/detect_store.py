"""Where detection keeps what it found and how far it came; everything may be written twice and counts once."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime

import asyncpg
import msgspec

from wardmesh_audit.detect import Alert
from wardmesh_audit.detect_event import Seen, seen
from wardmesh_audit.detect_state import Hour, State, encode
from wardmesh_audit.ledger import Connection

NAME = "detection"
_LOCK = "select pg_try_advisory_lock(hashtext('wardmesh.audit.detection'))"
_ALERT = """
insert into alert (id, rule, log_id, seq, severity, score, actor_id, patient_ref, facts)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9::jsonb) on conflict do nothing
"""
_REVIEW = "insert into review (id, alert_id, event_id, kind) values ($1, $2, $3, $4) on conflict do nothing"
_SAVE = """
insert into consumer_state (name, log_id, next_index, state) values ($1, $2, $3, $4)
on conflict (name, log_id) do update set next_index = excluded.next_index, state = excluded.state
"""
# Somebody who is late brings an hour back that was forgotten: what was counted before is not taken away.
_HOURS = """
insert into actor_hour (log_id, hour, actor_id, events, patients)
select * from unnest($1::smallint[], $2::timestamptz[], $3::text[], $4::bigint[], $5::bigint[])
on conflict (log_id, hour, actor_id) do update set events = greatest(actor_hour.events, excluded.events),
  patients = greatest(actor_hour.patients, excluded.patients)
"""
_OPEN_USES = """
select e.log_id, e.seq, e.leaf, e.recorded_at from review r
join event e on e.event_id = r.event_id and e.log_id = any($1::smallint[])
where r.kind = 'break_glass' and r.status = 'open' and e.occurred_at < $2
  and not exists (select 1 from alert a where a.rule = $3 and a.log_id = e.log_id and a.seq = e.seq)
"""
_HANDLES = """
select pseudonym, handle from subject_key where pseudonym = any($1::bytea[]) and destroyed_at is null
"""
_MOST_HANDLES = 10_000
_HANDLE_SECONDS = 300.0  # a shredded patient is unknown here as soon as his key is to the stations


class Store:
    def __init__(self, conn: Connection, logs: Sequence[int]) -> None:
        self._conn = conn
        self._logs = logs

    async def lock(self) -> bool:
        """One detection works at a time; it is let go with the connection."""
        return bool(await self._conn.fetchval(_LOCK))

    async def load(self) -> tuple[dict[int, int], bytes]:
        """The next index of each log that was read before, and the saved state."""
        rows = await self._conn.fetch("select log_id, next_index, state from consumer_state where name = $1", NAME)
        return {row["log_id"]: row["next_index"] for row in rows}, b"".join(row["state"] for row in rows)

    async def save(self, places: dict[int, int], state: State, hours: Iterable[Hour]) -> None:
        async with self._conn.transaction():
            for log_id, place in places.items():
                kept = encode(state) if log_id == min(places) else b""
                await self._conn.execute(_SAVE, NAME, log_id, place, kept)
            rows = _hour_rows(hours)
            if rows:
                await self._conn.execute(_HOURS, *map(list, zip(*rows, strict=True)))

    async def knows(self, alert: Alert) -> bool:
        return await self._conn.fetchval("select 1 from alert where id = $1", alert.id) is not None

    async def add(self, alert: Alert) -> None:
        about = alert.about
        patient = bytes.fromhex(about.patient) if about.patient else None
        facts = msgspec.json.encode({**alert.facts, "title": alert.title}).decode()
        async with self._conn.transaction():
            values = (alert.id, alert.rule, about.log, about.seq, alert.severity, alert.score, about.actor)
            await self._conn.execute(_ALERT, *values, patient, facts)
            if alert.review:
                used = about.event_id if alert.review == "break_glass" else None
                review_id = uuid.uuid5(alert.id, "review")
                await self._conn.execute(_REVIEW, review_id, alert.id, used, alert.review)

    async def open_uses(self, rule: str, before: datetime) -> list[Seen]:
        """Uses of break-glass from before then whose review is open and that this rule has not reported."""
        rows = await self._conn.fetch(_OPEN_USES, list(self._logs), before, rule)
        events = [seen(row["log_id"], row["seq"], row["leaf"], row["recorded_at"]) for row in rows]
        return [event for event in events if event is not None]


class Handles:
    """From pseudonyms to the handles of the key database, remembered for a few minutes."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._conn: Connection | None = None
        self._known: dict[bytes, bytes | None] = {}
        self._since = 0.0

    async def fill(self, events: Iterable[Seen]) -> None:
        """Raises what asyncpg raises when the database is away."""
        now = asyncio.get_running_loop().time()
        if now - self._since > _HANDLE_SECONDS or len(self._known) > _MOST_HANDLES:
            self._known, self._since = {}, now
        about = [(event, bytes.fromhex(event.patient)) for event in events if event.patient]
        wanted = list({name for _, name in about if name not in self._known})
        if wanted:
            if self._conn is None or self._conn.is_closed():
                self._conn = await self._connect()
            rows: list[asyncpg.Record] = await self._conn.fetch(_HANDLES, wanted)
            self._known |= dict.fromkeys(wanted) | {row["pseudonym"]: row["handle"] for row in rows}
        for event, name in about:
            event.handle = self._known[name]

    def close(self) -> None:
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None


def _hour_rows(hours: Iterable[Hour]) -> list[tuple[int, datetime, str, int, int]]:
    rows: list[tuple[int, datetime, str, int, int]] = []
    for hour in hours:
        patients = Counter(hour.patients.values())
        rows += [(log, hour.start, hour.actor, count, patients[log]) for log, count in hour.events.items()]
    return rows
