"""The writer role: takes messages, appends their lines in one transaction, acknowledges after the commit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import asyncpg
from msgspec import Struct
from nats.errors import Error as NatsError

from wardmesh_audit.assertions import check_guards
from wardmesh_audit.envelope import Row, each_row
from wardmesh_audit.guard import GuardTripped, check
from wardmesh_audit.guard import Outside as OutsideState
from wardmesh_audit.jetstream import JetStreamError
from wardmesh_audit.ledger import Appended, Connection, Ledger
from wardmesh_audit.puller import Pulled
from wardmesh_audit.streams import AUDIT_IN
from wardmesh_common.lean import NotConnected

BATCH_EVENTS = 500
LINGER_SECONDS = 0.02
_PAUSE_FIRST_SECONDS = 0.1
_PAUSE_LAST_SECONDS = 2.0
_HOUSEKEEPING_SECONDS = 600.0
_PARSE_ROWS = 16  # parsed in one go
_DAY = 86_400.0

# Databases and brokers come back; what else goes wrong is a bug and ends the process.
TRANSIENT = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a FATAL message that came between two statements leaves asyncpg like this
    OSError,
    TimeoutError,
    NatsError,
    NotConnected,
    JetStreamError,
)

# One of all replicas sees that the digest changed, and what it was.
_CONFIGURED = """
with before as (select digest from configuration where name = $1),
changed as (
  insert into configuration (name, digest, since) values ($1, $2, clock_timestamp())
  on conflict (name) do update set digest = excluded.digest, since = excluded.since
    where configuration.digest <> excluded.digest returning 1
) select (select digest from before) as digest from changed
"""

_log = logging.getLogger("wardmesh.audit")

# Tells the ledger about itself: reason and facts of an audit_status event.
Status = Callable[[str, dict[str, Any]], Awaitable[None]]


class Source(Protocol):
    """Where messages come from (`Puller`)."""

    async def take(self, events: int, linger_seconds: float) -> list[Pulled]: ...
    def acknowledge(self, messages: list[Pulled]) -> None: ...
    def forget(self, messages: list[Pulled]) -> None: ...
    def give_back(self) -> None: ...


class _Taken(Struct, frozen=True):
    """One batch, parsed."""

    messages: list[Pulled]
    rows: list[Row]
    odd: list[Row]  # their clocks are far off


class WriterState(Struct):
    """What the health page and tests look at."""

    size: int = 0
    rows: int = 0
    duplicates: int = 0
    transactions: int = 0
    failures: int = 0
    tripped: str = ""


class Writer:
    """One of any number of active writers. Keeps one database connection and opens it again by itself."""

    def __init__(
        self,
        source: Source,
        connect: Callable[[], Awaitable[Connection]],
        outside: Callable[[], Awaitable[OutsideState]],
        status: Status,
        *,
        log_id: int = 0,
        configuration: str = "",
        batch_events: int = BATCH_EVENTS,
        linger_seconds: float = LINGER_SECONDS,
    ) -> None:
        self._source = source
        self._connect = connect
        self._outside = outside
        self._status = status
        self._log_id = log_id
        self._configuration = configuration
        self._batch = batch_events
        self._linger = linger_seconds
        self._next: asyncio.Task[_Taken] | None = None  # the batch after the one that is being written
        self._conn: Connection | None = None
        self._appends: Ledger | None = None
        self._asserted_at = 0.0
        self.state = WriterState()

    async def run(self) -> None:
        """Until cancelled. Raises GuardTripped when the database is an old copy: nothing may be appended to it."""
        pause = _PAUSE_FIRST_SECONDS
        try:
            while True:
                try:
                    await self._turn()
                    pause = _PAUSE_FIRST_SECONDS
                except GuardTripped as error:
                    self.state.tripped = str(error)
                    raise
                except TRANSIENT as error:
                    self.state.failures += 1
                    _log.warning("audit writer: %s, trying again", type(error).__name__)
                    await self._give_back()
                    await self._disconnect()
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _PAUSE_LAST_SECONDS)
        finally:
            await self._give_back()
            await self._disconnect()

    async def _turn(self) -> None:
        ledger = await self._ledger()
        taken = await self._taken()
        # Taken and parsed while the database works on this one: that is most of the time of either.
        self._next = asyncio.create_task(self._take())
        try:
            done = await ledger.append(taken.rows)
        except BaseException:
            self._source.forget(taken.messages)
            raise
        self._source.acknowledge(taken.messages)
        self._count(done)
        await self._report(done, taken.odd)

    async def _taken(self) -> _Taken:
        task, self._next = self._next, None
        return await (task or asyncio.create_task(self._take()))

    async def _take(self) -> _Taken:
        messages = await self._source.take(self._batch, self._linger)
        rows: list[Row] = []
        odd: list[Row] = []
        try:
            for message in messages:
                received = message.received.timestamp()
                for row in each_row(AUDIT_IN, message.stream_seq, message.received, message.body):
                    rows.append(row)
                    if _odd_clock(row, received):
                        odd.append(row)
                    if len(rows) % _PARSE_ROWS == 0:
                        await asyncio.sleep(0)  # the transaction that is under way holds a lock: it goes first
        except BaseException:
            self._source.forget(messages)
            raise
        return _Taken(messages, rows, odd)

    async def _give_back(self) -> None:
        """What was taken and not written: another writer may reach the database, and we may be about to stop."""
        task, self._next = self._next, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, *TRANSIENT):
                self._source.forget((await task).messages)
        self._source.give_back()

    async def _ledger(self) -> Ledger:
        """The ledger on a live connection. Every new connection is checked by the guard before its first append."""
        if self._conn is None or self._appends is None or self._conn.is_closed():
            self._conn = await self._connect()
            self._appends = Ledger(self._conn, AUDIT_IN, log_id=self._log_id)
            self._asserted_at = 0.0
        now = asyncio.get_running_loop().time()
        if not self._asserted_at or now - self._asserted_at > _HOUSEKEEPING_SECONDS:
            await self._assert(self._conn)
            self._asserted_at = now
        return self._appends

    async def _assert(self, conn: Connection) -> None:
        outside = await self._outside()
        state = await conn.fetchrow("select size, root from tree_state where log_id = $1", self._log_id)
        if state is None:
            raise GuardTripped("the log has no tree state", database=0, outside=outside.published)
        check(outside, state["size"], state["root"])
        self.state.size = state["size"]
        if await conn.fetchval("select audit_make_partitions()"):
            _log.info("audit writer: month partitions made")
        await check_guards(conn)
        if not self._configuration:
            return
        before = await conn.fetchrow(_CONFIGURED, f"log {self._log_id}", self._configuration)
        if before is not None:
            facts = {"log": self._log_id, "digest": self._configuration, "before": before["digest"] or ""}
            await self._status("configuration", facts)

    def _count(self, done: Appended) -> None:
        self.state.size = done.size
        self.state.rows += done.rows
        self.state.duplicates += done.duplicates
        self.state.transactions += 1

    async def _report(self, done: Appended, odd: Sequence[Row]) -> None:
        """Incidents become events of their own. They are reported after the commit and must not stop the writer."""
        for seq in done.conflicts:
            await self._status("id_conflict", {"stream_seq": seq})
        if odd and done.rows:
            await self._status("clock_skew", {"events": len(odd), "stream_seq": odd[0].stream_seq})

    async def _disconnect(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None:
            with contextlib.suppress(Exception):
                conn.terminate()


def _odd_clock(row: Row, received: float) -> bool:
    """True when the id says a time outside the month partitions around the time of storage: it lies in DEFAULT."""
    ahead = (row.event_id.int >> 80) / 1000 - received
    return not -25 * _DAY < ahead < 85 * _DAY and not row.malformed
