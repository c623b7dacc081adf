"""Makes the list of logs of every day and publishes it, signed with the key of the checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import date

from wardmesh_audit.derived import NotStored
from wardmesh_audit.guard import GuardTripped
from wardmesh_audit.jetstream import last_message
from wardmesh_audit.ledger import Connection
from wardmesh_audit.log_list import LogList, following, log_number, open_list
from wardmesh_audit.merkle import EMPTY_ROOT
from wardmesh_audit.note import BadNote, BadSignature, Checkpoint, Signer, UnknownKey, Verifier
from wardmesh_audit.streams import AUDIT_CHECKPOINT
from wardmesh_audit.turns import take_turns
from wardmesh_audit.writer import Status
from wardmesh_common.lean import LeanClient

SUBJECT = "audit.checkpoint.logs"
_LOOK_SECONDS = 60.0
_ANSWER_SECONDS = 5.0
_LOGS = """
select t.log_id, c.size, c.root from tree_state t
left join lateral (select size, root from checkpoint where log_id = t.log_id order by size desc limit 1) c on true
order by t.log_id
"""
_NEWEST = "select day, note from log_list order by day desc limit 1"
_TODAY = "select (clock_timestamp() at time zone 'UTC')::date"

_log = logging.getLogger("wardmesh.audit")


async def today_of(conn: Connection) -> date:
    """By the clock of the database, which all replicas have in common and the ledger goes by."""
    day: date | None = await conn.fetchval(_TODAY)
    assert day is not None, "a clock has no null"
    return day


class DailyList:
    """Any number may run: the day is the primary key, so there is one list a day, whoever makes it."""

    def __init__(
        self,
        nc: LeanClient,
        connect: Callable[[], Awaitable[Connection]],
        signer: Signer,
        trusted: Sequence[Verifier],
        status: Status,
        *,
        look_seconds: float = _LOOK_SECONDS,
        today: Callable[[Connection], Awaitable[date]] = today_of,
    ) -> None:
        self._nc = nc
        self._connect = connect
        self._signer = signer
        self._trusted = trusted  # retired keys too: the list before may be signed by one of them alone
        self._status = status
        self._look = look_seconds
        self._today = today
        self._told = ""

    async def run(self) -> None:
        """Until cancelled. What keeps a list from being made is told once and tried again."""
        await take_turns(self._connect, self._turn, self._look, "list of logs")

    async def _turn(self, conn: Connection) -> None:
        try:
            await self.make(conn)
        except (GuardTripped, UnknownKey, BadSignature, BadNote) as error:
            await self._tell(str(error))

    async def make(self, conn: Connection) -> str:
        """The note of the newest list, made when the day has none yet. Raises GuardTripped when a log is gone."""
        async with conn.transaction(isolation="repeatable_read"):
            day, newest = await self._today(conn), await conn.fetchrow(_NEWEST)
            before = open_list(newest["note"], self._trusted) if newest is not None else None
            if before is None or before.day < day:
                logs = {row["log_id"]: row for row in await conn.fetch(_LOGS)}
                made = LogList(
                    origin=self._signer.verifier.name,
                    day=day,
                    previous=following(before),
                    logs=tuple(self._entry(log, row["size"], row["root"]) for log, row in logs.items()),
                )
                _nothing_lost(before, made)
                note = self._signer.sign(made.text())
                await conn.execute("insert into log_list (day, note) values ($1, $2) on conflict do nothing", day, note)
        stored = await conn.fetchrow(_NEWEST)
        assert stored is not None, "it was there, or has been made above"
        await self._publish(stored["note"])
        return stored["note"]

    def _entry(self, log: int, size: int | None, root: bytes | None) -> Checkpoint:
        origin = f"{self._signer.verifier.name.removesuffix('logs')}{log}"
        return Checkpoint(origin, size or 0, root or EMPTY_ROOT)

    async def _publish(self, note: str) -> None:
        last = await last_message(self._nc, AUDIT_CHECKPOINT, SUBJECT)
        if last is not None and last.data == note.encode():
            return
        answer = await self._nc.request(SUBJECT, note.encode(), timeout=_ANSWER_SECONDS)
        if b'"error"' in answer.data:
            raise NotStored("the stream refused the list of logs")

    async def _tell(self, text: str) -> None:
        _log.critical("list of logs: %s; none is signed", text)
        if text != self._told:
            self._told = text
            await self._status("log_list_refused", {})


def _nothing_lost(before: LogList | None, made: LogList) -> None:
    sizes = {log_number(made.origin, log): log.size for log in made.logs}
    for log in before.logs if before is not None else ():
        size = sizes.get(log_number(made.origin, log), -1)
        if size < log.size:
            raise GuardTripped("a log of the last list is gone or smaller", database=size, outside=log.size)
