"""The publisher role: committed events into AUDIT in order, then signed checkpoints; one active instance per log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from msgspec import Struct

from wardmesh_audit import signing
from wardmesh_audit.assertions import check_guards
from wardmesh_audit.guard import GuardTripped, Outside, check, check_checkpoint
from wardmesh_audit.ledger import NOTIFY_CHANNEL, Connection
from wardmesh_audit.nodes import MissingLeaves
from wardmesh_audit.note import BadNote, BadSignature, Signer, UnknownKey, split_note
from wardmesh_audit.outbox import Committed, Outbox, OutOfOrder
from wardmesh_audit.writer import TRANSIENT, Status

CHECKPOINT_SECONDS = 1.0
CHECKPOINT_EVENTS = 500
GATHER_SECONDS = 0.25  # what is committed meanwhile is one query and one batch; nobody waits for it
_FETCH = 500
_LOCK_KEY = 0x77617264  # "ward", with the log id as second part
_PAUSE_SECONDS = 0.5
_LOCK_SECONDS = 1.0
_ASSERT_SECONDS = 600.0

_TAIL_BYTES = 200
_TRACEPARENT = re.compile(rb'"traceparent":"([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})"')

_log = logging.getLogger("wardmesh.audit")


class PublisherState(Struct):
    active: bool = False
    published: int = 0
    signed: int = 0
    checkpoints: int = 0
    failures: int = 0
    tripped: str = ""


class Publisher:
    """Holds the advisory lock of its log on its own connection; without it, it only waits."""

    def __init__(
        self,
        outbox: Outbox,
        connect: Callable[[], Awaitable[Connection]],
        outside: Callable[[], Awaitable[Outside]],
        signer: Signer,
        status: Status,
        *,
        log_id: int = 0,
        witnesses: signing.Cosigners | None = None,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        gather_seconds: float = GATHER_SECONDS,
    ) -> None:
        self._outbox = outbox
        self._connect = connect
        self._outside = outside
        self._signer = signer
        self._status = status
        self._log_id = log_id
        self._witnesses = witnesses
        self._every = checkpoint_seconds
        self._gather = min(gather_seconds, checkpoint_seconds)
        self._changed = asyncio.Event()
        self._signed_at = 0.0
        self.state = PublisherState()

    async def run(self) -> None:
        """Until cancelled. Raises GuardTripped when publishing or signing would contradict what is out already."""
        while True:
            try:
                conn = await self._connect()
                try:
                    await self._lead(conn)
                finally:
                    self.state.active = False
                    with contextlib.suppress(Exception):
                        conn.terminate()
            except GuardTripped as error:
                await self._trip(error)
                raise
            except (UnknownKey, BadSignature, BadNote) as error:
                tripped = GuardTripped("the published checkpoint is not ours", database=0, outside=0)
                await self._trip(tripped)
                raise tripped from error
            except (*TRANSIENT, OutOfOrder) as error:
                self.state.failures += 1
                _log.warning("audit publisher: %s, trying again", type(error).__name__)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _lead(self, conn: Connection) -> None:
        # Polled: a session that waits inside PostgreSQL would not notice that this process is to stop.
        while not await conn.fetchval("select pg_try_advisory_lock($1, $2)", _LOCK_KEY, self._log_id):  # noqa: ASYNC110
            await asyncio.sleep(_LOCK_SECONDS)
        self.state.active = True
        await conn.add_listener(NOTIFY_CHANNEL, self._on_notify)
        await self._resume(conn)
        asserted_at = -_ASSERT_SECONDS
        while True:
            if (now := asyncio.get_running_loop().time()) - asserted_at > _ASSERT_SECONDS:
                await check_guards(conn)
                asserted_at = now
            more = await self._publish_new(conn) == _FETCH
            await self._checkpoint_if_due(conn)
            if not more:
                await self._news()

    async def _news(self) -> None:
        """Waits for a commit and for what follows it closely, or until the next checkpoint may be due."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._every):
                await self._changed.wait()
                self._changed.clear()  # what comes from here on may be after our next look
                await asyncio.sleep(self._gather)

    async def _resume(self, conn: Connection) -> None:
        """Where the last publisher stopped: after a crash a stored checkpoint may not have been published yet."""
        outside = await self._outside()
        stored = await signing.newest(conn, self._log_id)
        size, root = await signing.tree(conn, self._log_id)
        check(outside, size, root)
        self.state.published = outside.published
        if stored is not None:
            check_checkpoint(stored[0], size, root)
            await self._publish_below(conn, stored[0].size)
            if outside.checkpoint is None or outside.checkpoint.size < stored[0].size:
                await self._outbox.publish_checkpoint(stored[0].size, stored[1])
            self.state.signed = stored[0].size
            await self._tell_new_keys(stored[1])

    async def _tell_new_keys(self, note: str) -> None:
        """A change of signing keys is an event; the first note of the new ones ends it."""
        ours = [verifier.key_id.hex() for verifier in self._signer.verifiers]
        name = self._signer.verifier.name
        before = [identifier.hex() for who, identifier, _ in split_note(note)[1] if who == name]
        if before != ours:
            await self._status("signing_key_changed", {"log": self._log_id, "before": before, "keys": ours})

    async def _publish_new(self, conn: Connection) -> int:
        rows = await conn.fetch(
            "select seq, event_type, action, purpose, leaf, leaf_hash from event"
            " where log_id = $1 and seq >= $2 order by seq limit $3",
            self._log_id,
            self.state.published,
            _FETCH,
        )
        if not rows:
            return 0
        if rows[0]["seq"] != self.state.published or rows[-1]["seq"] != self.state.published + len(rows) - 1:
            raise GuardTripped("a committed event is missing", database=rows[0]["seq"], outside=self.state.published)
        await self._outbox.publish([_committed(row) for row in rows])
        self.state.published += len(rows)
        return len(rows)

    async def _publish_below(self, conn: Connection, size: int) -> None:
        while self.state.published < size:
            if await self._publish_new(conn) == 0:
                raise GuardTripped("committed events are missing", database=self.state.published, outside=size)

    async def _checkpoint_if_due(self, conn: Connection) -> None:
        now = asyncio.get_running_loop().time()
        new = self.state.published - self.state.signed
        if new <= 0 or (new < CHECKPOINT_EVENTS and now - self._signed_at < self._every):
            return
        await self._checkpoint(conn)
        self._signed_at = now

    async def _checkpoint(self, conn: Connection) -> None:
        outside = await self._outside()  # first the outside and what is stored, the tree last
        stored = await signing.newest(conn, self._log_id)
        size, root = await signing.tree(conn, self._log_id)
        check(outside, size, root)
        check_checkpoint(stored[0] if stored else None, size, root)
        await self._publish_below(conn, size)
        note = await signing.sign(conn, self._signer, size, root, self._log_id, witnesses=self._witnesses)
        await self._outbox.publish_checkpoint(size, note)
        self.state.signed = size
        self.state.checkpoints += 1
        try:
            await signing.store_tiles(conn, size, self._log_id)
        except MissingLeaves:
            raise GuardTripped("committed events are missing", database=size, outside=size) from None

    def _on_notify(self, *_: Any) -> None:
        self._changed.set()

    async def _trip(self, error: GuardTripped) -> None:
        self.state.tripped = str(error)
        _log.critical("audit guard: %s; nothing is signed any more", error)
        await self._status("guard_tripped", {"database": error.database, "outside": error.outside})


def _committed(row: asyncpg.Record) -> Committed:
    return Committed(
        seq=row["seq"],
        event_type=row["event_type"],
        action=row["action"],
        purpose=row["purpose"],
        leaf=row["leaf"],
        leaf_hash=row["leaf_hash"],
        traceparent=_traceparent(row["leaf"]),
    )


def _traceparent(leaf: bytes) -> str:
    """The trace context of an event, read from the end of its leaf (keys are sorted), without parsing it all again."""
    found = _TRACEPARENT.search(leaf, max(0, len(leaf) - _TAIL_BYTES))
    return found[1].decode() if found else ""
