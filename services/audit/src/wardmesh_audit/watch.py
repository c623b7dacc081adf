"""The watch over producers: who is there, whose counter has gaps, and which intents never got an outcome."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec
from msgspec import Struct

from wardmesh_audit import gaps
from wardmesh_audit.derived import Derived, publish, status, unterminated
from wardmesh_audit.ledger import Connection
from wardmesh_audit.turns import take_turns
from wardmesh_common.lean import LeanClient

UNTERMINATED_SECONDS = 300.0
_TURN_SECONDS = 20.0
_PING_SECONDS = 1.0
_INTENTS = 500
_NAME = "intents"

_OPEN = """
select seq, event_id, occurred_at, request_id, leaf from event
where log_id = $1 and phase = 'intent' and outcome is distinct from 'withheld' and seq >= $2
  and recorded_at < clock_timestamp() - $3 * interval '1 second' order by seq limit $4
"""
# An outcome may lie in another log than its intent: the patient is known only afterwards.
_ENDED = """
select distinct request_id from event where request_id = any($1::text[]) and (phase = 'outcome' or outcome = 'withheld')
  and (break_glass or event_type not in ('access', 'search', 'login', 'audit_status', 'audit_read', 'alert'))
"""
_THERE = "select event_id from event where log_id = $1 and event_id = any($2::uuid[])"
_SAVE = """
insert into consumer_state (name, log_id, next_index) values ($1, $2, $3)
on conflict (name, log_id) do update set next_index = greatest(consumer_state.next_index, excluded.next_index)
"""
_ALIVE = "update producer_seq set alive_at = clock_timestamp() where not closed and producer = any($1::text[])"

_log = logging.getLogger("wardmesh.audit")


class _Pong(Struct):
    id: str = ""


class Watch:
    """Any number may run: what they report is derived from stored rows, so the ledger keeps it once."""

    def __init__(
        self,
        nc: LeanClient,
        connect: Callable[[], Awaitable[Connection]],
        logs: Sequence[int] = (0,),
        *,
        unterminated_seconds: float = UNTERMINATED_SECONDS,
        silent_seconds: float = gaps.SILENT_SECONDS,
        missing_seconds: float = gaps.MISSING_SECONDS,
        ping_seconds: float = _PING_SECONDS,
    ) -> None:
        self._nc = nc
        self._connect = connect
        self._logs = logs
        self._unterminated = unterminated_seconds
        self._silent = silent_seconds
        self._missing = missing_seconds
        self._ping = ping_seconds
        self._pause = min(_TURN_SECONDS, unterminated_seconds / 4, silent_seconds / 4)

    async def run(self) -> None:
        """Until cancelled; a database or broker that is away is tried again."""
        await take_turns(self._connect, self.turn, self._pause, "audit watch")

    async def turn(self, conn: Connection) -> None:
        """One look at everything."""
        await conn.execute(_ALIVE, await self._present())
        for log_id in self._logs:
            await self._end_intents(conn, log_id)
            await self._report_gaps(conn, log_id)

    async def _present(self) -> list[str]:
        """The instances that answer now."""
        inbox = f"{self._nc.inbox}.ping.{secrets.token_hex(4)}"
        answers: list[bytes] = []
        sid = self._nc.lean_subscribe(inbox, lambda _s, _r, data, _h: answers.append(data))
        try:
            self._nc.lean_publish("$SRV.PING", b"", reply=inbox)
            await asyncio.sleep(self._ping)
        finally:
            self._nc.lean_unsubscribe(sid)
            self._nc.lean_forget(sid)
        names: list[str] = []
        for answer in answers:
            with contextlib.suppress(msgspec.MsgspecError):
                names.append(msgspec.json.decode(answer, type=_Pong).id)
        return names

    async def _end_intents(self, conn: Connection, log_id: int) -> None:
        start: int | None = await conn.fetchval(
            "select next_index from consumer_state where name = $1 and log_id = $2", _NAME, log_id
        )
        rows = await conn.fetch(_OPEN, log_id, start or 0, self._unterminated, _INTENTS)
        if not rows:
            return
        ended = {row["request_id"] for row in await conn.fetch(_ENDED, [row["request_id"] for row in rows])}
        ends = {
            row["seq"]: unterminated(row["event_id"], row["occurred_at"], row["leaf"])
            for row in rows
            if row["request_id"] not in ended
        }
        stored = await self._publish_missing(conn, log_id, ends.values())
        # The place to go on from: everything before it has an end in the ledger.
        waiting = [seq for seq, end in ends.items() if end.event_id not in stored]
        await conn.execute(_SAVE, _NAME, log_id, min(waiting, default=rows[-1]["seq"] + 1))

    async def _report_gaps(self, conn: Connection, log_id: int) -> None:
        found = await gaps.find(conn, log_id=log_id, silent_seconds=self._silent, missing_seconds=self._missing)
        events = [_event(gap) for gap in found]
        await self._publish_missing(conn, log_id, events)

    async def _publish_missing(self, conn: Connection, log_id: int, events: Iterable[Derived]) -> set[object]:
        """Publishes those that are not stored yet; returns the ids of those that are."""
        wanted = list(events)
        if not wanted:
            return set()
        stored = {row["event_id"] for row in await conn.fetch(_THERE, log_id, [e.event_id for e in wanted])}
        for event in wanted:
            if event.event_id not in stored:
                await publish(self._nc, log_id, event)
        return stored


def _event(gap: gaps.Gap) -> Derived:
    reason = "producer_lost" if gap.kind == "open" else f"producer_{gap.kind}"
    facts = {
        "producer": gap.producer,
        "epoch": gap.epoch,
        "last_seq": gap.last_seq,
        "ranges": [list(part) for part in gap.ranges],
    }
    # `since` moves when a silent producer is heard again: going silent a second time is a second event.
    key = f"{reason}\x1f{gap.log}\x1f{gap.epoch}\x1f{gap.last_seq}\x1f{gap.ranges}"
    return status(key, gap.since, reason, facts)
