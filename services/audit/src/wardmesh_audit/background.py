"""The role `verify`: reads the whole ledger again and again in small slices and says what it finds, asked by nobody."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from wardmesh_audit import signing
from wardmesh_audit.background_record import Record
from wardmesh_audit.derived import Requester
from wardmesh_audit.findings import CANNOT_VERIFY, VERIFIED, Finding, Report
from wardmesh_audit.guard import Outside
from wardmesh_audit.ledger import Connection
from wardmesh_audit.log_list_check import ListCheck
from wardmesh_audit.note import BadNote, BadSignature, UnknownKey, Verifier
from wardmesh_audit.pruned import Overtaken
from wardmesh_audit.verify import PIECE, Pin, Verification
from wardmesh_audit.writer import TRANSIENT

_LOCK = "select pg_try_advisory_lock(hashtext('wardmesh.audit.verification'), $1)"
# A log that has just begun: nothing is signed yet, and nothing is late. Never true of one that lost what it held.
_YOUNG = """
select not exists (select 1 from checkpoint where log_id = $1) and coalesce(
  (select recorded_at > clock_timestamp() - make_interval(secs => $2) from event where log_id = $1 and seq = 0),
  size = 0)
from tree_state where log_id = $1
"""
_STANDBY_SECONDS = 5.0
_PAUSE_SECONDS = 1.0
_LEAST_SECONDS = 0.02  # between two slices, however fast they are

_log = logging.getLogger("wardmesh.audit")


class Standing(Struct):
    """What the health endpoint and the metrics show: of the last run that ended here."""

    exit_code: int = CANNOT_VERIFY
    ended: float = 0.0  # on the clock of the machine; 0: none has ended
    checked: int = 0
    tampered: str = ""  # what was found first

    @property
    def healthy(self) -> bool:
        return not self.tampered and (not self.ended or self.exit_code == VERIFIED)

    def age(self) -> float:
        """Seconds since the last run ended; since the epoch when none has: old enough for every alarm."""
        return time.time() - self.ended

    def text(self) -> str:
        if self.tampered:
            return self.tampered
        if not self.ended:
            return f"{self.checked} events of the first run"
        return f"exit {self.exit_code}, {time.time() - self.ended:.0f} s ago"


class _Going(Struct):
    """A run that is under way; it outlives the connection it was begun on."""

    record: Record
    verification: Verification
    told: int = 0  # of its findings
    done: bool = False  # read to the end


class Background:
    """Of one log. Any number may run; one works and the others wait for its lock."""

    def __init__(
        self,
        nc: Requester,
        connect: Callable[[], Awaitable[Connection]],
        verifiers: Sequence[Verifier],
        outside: Callable[[], Awaitable[Outside]],
        *,
        log_id: int = 0,
        lists: Sequence[Verifier] = (),
        every_seconds: float = 3600.0,
        share: float = 0.1,
        piece: int = PIECE,
        young_seconds: float = 60.0,
    ) -> None:
        self._nc = nc
        self._connect = connect
        self._verifiers = verifiers
        self._outside = outside
        self._log_id = log_id
        self._lists = lists  # keys of the daily lists of logs; the background of one log looks at them
        self._every = every_seconds
        self._share = share
        self._piece = piece
        self._young = young_seconds
        self._going: _Going | None = None
        self._seen: Pin | None = None  # what this process has verified: a log that forks from it is found
        self.standing = Standing()

    async def run(self) -> None:
        """Until cancelled; a database or broker that is away is tried again, and the run goes on where it was."""
        while True:
            try:
                conn = await self._connect()
                try:
                    while not await conn.fetchval(_LOCK, self._log_id):  # noqa: ASYNC110 - another process holds it
                        await asyncio.sleep(_STANDBY_SECONDS)
                    while True:
                        while await self._unsigned(conn):  # noqa: ASYNC110 - another process signs
                            await asyncio.sleep(_PAUSE_SECONDS)
                        await self.verify(conn)
                        await asyncio.sleep(self._every)
                finally:
                    conn.terminate()
            except Overtaken:
                self._going = None
                _log.info("background verification: a month was dropped meanwhile, beginning anew")
            except TRANSIENT as error:
                _log.warning("background verification: %s, trying again", type(error).__name__)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def verify(self, conn: Connection) -> Report:
        """One run from the first event to the last, or what a lost connection has left of one.

        What it finds is told at once, not at its end.
        """
        going = self._going = self._going or await self._begun(conn)
        going.record.conn = conn
        await self._tell(going)
        while not going.done:
            begun = time.thread_time()
            # A slice whose connection is lost is thrown away whole and read again: nothing is skipped or counted twice.
            attempt = going.verification.moved_to(conn)
            going.done = await attempt.slice()
            going.verification = attempt
            spent = time.thread_time() - begun
            await self._tell(going)
            await asyncio.sleep(max(_LEAST_SECONDS, spent / self._share - spent))
        report = going.verification.report
        await going.record.ended(report)
        self._going = None
        self.standing.exit_code, self.standing.ended = report.exit_code, time.time()
        if report.exit_code == VERIFIED:
            self.standing.tampered = ""
            newest = await signing.newest(conn, self._log_id)
            if newest is not None and newest[0].size <= (report.last_good_checkpoint or 0):
                self._seen = Pin(newest[0], "earlier verification")
        return report

    async def _unsigned(self, conn: Connection) -> bool:
        """Whether there is nothing to verify against because the first checkpoint is still to come."""
        if self._going is not None or not await conn.fetchval(_YOUNG, self._log_id, self._young):
            return False
        doubts: list[Finding] = []
        return not await self._pins(doubts) and not doubts

    async def _begun(self, conn: Connection) -> _Going:
        record = Record(self._nc, conn, self._log_id, uuid.uuid4(), datetime.now(UTC))
        doubts: list[Finding] = []
        pins = await self._pins(doubts)
        verification = Verification(conn, self._verifiers, pins=pins, log_id=self._log_id, piece=self._piece)
        if self._lists:
            doubts += (await ListCheck(conn, self._lists).run()).findings
        for doubt in doubts:
            verification.report.add(doubt)
        await record.started()
        return _Going(record, verification)

    async def _tell(self, going: _Going) -> None:
        report = going.verification.report
        self.standing.checked = report.rows
        if report.findings[going.told :]:
            self._say(report)
            await going.record.found(report.findings[going.told :], report.total_findings)
            going.told = len(report.findings)
        await going.record.progress(report, running=not going.done)

    async def _pins(self, report_into: list[Finding]) -> list[Pin]:
        """What is known outside the database: by the stream, by a witness and by this process."""
        pins = [self._seen] if self._seen is not None else []
        try:
            outside = await self._outside()
        except (BadNote, BadSignature, UnknownKey):
            detail = "the published checkpoint is not signed by a key we know"
            report_into.append(Finding(kind="checkpoint_signature", index=0, detail=detail))
            return pins
        known = ((outside.checkpoint, "stream"), (outside.witnessed, "witness"))
        return [*pins, *(Pin(checkpoint, place) for checkpoint, place in known if checkpoint is not None)]

    def _say(self, report: Report) -> None:
        first = report.findings[0]
        self.standing.tampered = f"{first.kind} at index {first.index}"
        _log.critical("the ledger is not what was signed: log %d, %s", self._log_id, self.standing.tampered)
