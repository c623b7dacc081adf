"""The gateway's side of a journey: submit a call, wait for its reply, notice when it got lost (AR-4, AR-7, NB-7)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec

from wardmesh_common.contracts import (
    CANCEL,
    IDENTIFY,
    SEEK,
    Call,
    Credit,
    Outcome,
    Parked,
    Reply,
    decode_reply,
    encode,
)
from wardmesh_common.deadline import Deadlines
from wardmesh_common.errors import (
    AuditUnavailable,
    Busy,
    Internal,
    OutcomeUnknown,
    TimedOut,
    Unavailable,
    WardmeshError,
)
from wardmesh_common.lean import LeanClient, NotConnected, PayloadTooLarge, status_of
from wardmesh_common.station import Recorder, broken_off, outcome_of
from wardmesh_common.transfer import HUNG_UP, IDLE_SECONDS, INLINE_BYTES, SenderLost, Sent, Transfers
from wardmesh_common.vocabulary import is_write

SEEK_SECONDS = 0.5  # a call without a reply for this long is looked for, and then again as often
MISSES_READ = 2  # nobody held the call so many times in a row: it is lost
MISSES_WRITE = 4
RETRY_SHARE = 0.1
RETRY_FLOOR = 10
RETRYABLE = frozenset({"busy", "unavailable"})
# The stations end a call this much before the gateway gives up on it, so that their answer still arrives.
MARGIN_SECONDS = 0.5
# The sender of a stream gives up first, and says so.
STREAM_PATIENCE_SECONDS = IDLE_SECONDS + 2


class Delivery:
    """A reply and its body, which may still be on its way in chunks."""

    def __init__(
        self, reply: Reply, transfers: Transfers, expires: float, record: Callable[[Outcome], Awaitable[None]]
    ) -> None:
        self.reply = reply
        self._transfers = transfers
        self._expires = expires
        self._record = record

    async def body(self) -> bytes:
        """The whole body in memory. Raises TransferBroken when the performer vanished in between."""
        if not self.reply.chunked_bytes:
            return self.reply.body
        return b"".join([part async for part in self.stream()])

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The body piece by piece; the next piece is only asked for when this one was taken."""
        if not self.reply.chunked_bytes:
            yield self.reply.body
            return
        patience = STREAM_PATIENCE_SECONDS if self.reply.streamed else max(1.0, self._expires - time.monotonic())
        parts = self._transfers.receive(self.reply.call_id, self.reply.credit_to, patience)
        size = 0
        try:
            async with contextlib.aclosing(parts):
                async for part in parts:
                    size += len(part)
                    yield part
        except SenderLost as error:
            await self._record(broken_off(error.problem, size))
            raise

    def decline(self) -> None:
        """The head of the answer is all that is wanted."""
        if self.reply.chunked_bytes:
            self._transfers.decline(self.reply.call_id, self.reply.credit_to)


class _Pending:
    __slots__ = ("future", "misses", "since", "write")

    def __init__(self, future: asyncio.Future[Reply], write: bool) -> None:
        self.future = future
        self.write = write
        self.since = time.monotonic()
        self.misses = 0


class RetryBudget:
    """At most a tenth of the calls of the last ten seconds may be retries, and always a few (NB-7)."""

    def __init__(self) -> None:
        self._window = 0.0
        self._calls = 0
        self._retries = 0

    def count(self) -> None:
        now = time.monotonic()
        if now - self._window > 10:
            self._window, self._calls, self._retries = now, 0, 0
        self._calls += 1

    def take(self) -> bool:
        if self._retries >= max(RETRY_FLOOR, self._calls * RETRY_SHARE):
            return False
        self._retries += 1
        return True


class Submissions:
    """All calls of one gateway replica that wait for their reply."""

    def __init__(self, nc: LeanClient, transfers: Transfers, recorder: Recorder) -> None:
        self._nc = nc
        self._transfers = transfers
        self._recorder = recorder
        self._pending: dict[str, _Pending] = {}
        self._parked: dict[str, bytes] = {}
        self._budget = RetryBudget()
        self._deadlines = Deadlines()
        self._sending: set[asyncio.Task[Sent]] = set()

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    async def submit(self, call: Call, body: bytes | None = None) -> Delivery:
        """Send the call on its way and wait. `call.deadline` is absolute; cancelling this cancels the call.

        Raises Unavailable, Busy, TimedOut, OutcomeUnknown or AuditUnavailable when the journey ended without a
        reply of a station; a station's own refusal is a Reply with a problem.
        """
        self._budget.count()
        expires = time.monotonic() + call.deadline - time.time()
        call.reply_to = f"{self._nc.inbox}.w.c"
        if body is not None and len(body) > INLINE_BYTES:
            call.parked = Parked(
                subject=f"{self._nc.inbox}.w.p", size=len(body), sha256=hashlib.sha256(body).hexdigest()
            )
            self._parked[call.id] = body
        elif body is not None:
            call.body = body
        try:
            return await self._attempts(call, expires)
        except WardmeshError as error:
            await self._record(call, outcome_of(error))
            raise
        except asyncio.CancelledError:
            self._publish_quietly(CANCEL, call.id.encode())
            self._transfers.forget(call.id)
            raise
        finally:
            self._parked.pop(call.id, None)

    async def _attempts(self, call: Call, expires: float) -> Delivery:
        write = is_write(call.interaction, call.operation)
        while True:
            try:
                reply = await self._attempt(call, expires, write)
            except (Unavailable, TimedOut):
                if not self._may_retry(call, expires, write):
                    raise
            else:
                code = reply.problem.code if reply.problem else ""
                if code not in RETRYABLE or not self._may_retry(call, expires, write):
                    return Delivery(reply, self._transfers, expires, functools.partial(self._record, call))
            call.attempt += 1
            await asyncio.sleep(0.05)

    def _may_retry(self, call: Call, expires: float, write: bool) -> bool:
        if write or call.attempt or expires - time.monotonic() < MARGIN_SECONDS * 2:
            return False
        return self._nc.is_connected and self._budget.take()

    async def _attempt(self, call: Call, expires: float, write: bool) -> Reply:
        left = expires - time.monotonic() - MARGIN_SECONDS
        call.sent_at = time.time()
        call.remaining_ms = max(0, int(left * 1000))
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending[call.id] = _Pending(future, write)
        try:
            self._nc.lean_publish(IDENTIFY, encode(call), reply=f"{self._nc.inbox}.w.n.{call.id}")
            with self._deadlines.within(left + MARGIN_SECONDS):
                return await future
        except NotConnected:
            raise Unavailable("The bus is not reachable.") from None
        except PayloadTooLarge:
            raise Internal("The call is too large for the bus.") from None
        except TimeoutError:
            lost = "The outcome of the write is unknown." if write else "The mesh did not answer in time."
            raise (OutcomeUnknown if write else TimedOut)(lost) from None
        finally:
            del self._pending[call.id]

    async def _record(self, call: Call, outcome: Outcome) -> None:
        """The gateway ended this journey, so it records it; without a record the answer is an error anyway."""
        with contextlib.suppress(AuditUnavailable):
            await asyncio.shield(self._recorder.outcome(call, outcome))

    # --- what arrives in the inbox ---

    def on_reply(self, data: bytes) -> None:
        try:
            reply = decode_reply(data)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return  # nobody can be told; the call is sought and found lost
        pending = self._pending.get(reply.call_id)
        if pending is None or pending.future.done():
            if reply.chunked_bytes:
                self._publish_quietly(reply.credit_to, encode(Credit(call_id=reply.call_id, upto=HUNG_UP)))
            return
        if reply.chunked_bytes:
            self._transfers.expect(reply.call_id, reply.chunked_bytes)
        pending.future.set_result(reply)

    def on_hop_answer(self, call_id: str, header: bytes | None) -> None:
        if status_of(header) == 503:
            self._fail(call_id, Unavailable("No instance of auth is up."))
        else:
            self._fail(call_id, Internal("A station could not read the call."))

    def on_body_wanted(self, credit: Credit) -> None:
        """A performer fetches a parked body, or gives further credit for it."""
        body = self._parked.get(credit.call_id)
        if body is None or not credit.reply_to:
            return
        self._transfers.open(credit.call_id)
        task = asyncio.create_task(self._transfers.send(credit.call_id, credit.reply_to, body, 30.0))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    def fail_all(self, error: WardmeshError) -> None:
        """The connection is gone: nobody waits for a reply that cannot come (NB-2)."""
        for call_id, pending in list(self._pending.items()):
            unknown = OutcomeUnknown("The bus was lost while a write was under way.")
            self._fail(call_id, unknown if pending.write else error)

    def _fail(self, call_id: str, error: WardmeshError) -> None:
        pending = self._pending.get(call_id)
        if pending is not None and not pending.future.done():
            pending.future.set_exception(error)

    # --- seeking lost calls ---

    async def seek_forever(self) -> None:
        """Twice a second ask all stations who holds the calls that have no reply yet.

        A station killed in mid-call leaves no trace for the one who waits; the question costs nothing while calls
        are fast, and finds a dead instance in about a second instead of at the deadline.
        """
        while True:
            await asyncio.sleep(SEEK_SECONDS)
            slow = self._slow()
            if not slow or not self._nc.is_connected:
                continue
            for pending in slow.values():
                pending.misses += 1
            question = "\n".join(slow).encode()
            self._publish_quietly(SEEK, question, reply=f"{self._nc.inbox}.w.s")
            await asyncio.sleep(SEEK_SECONDS / 2)
            self._give_up_lost(slow)

    def on_found(self, data: bytes) -> None:
        for call_id in data.decode().split("\n"):
            pending = self._pending.get(call_id)
            if pending is not None:
                pending.misses = 0

    def _slow(self) -> dict[str, _Pending]:
        before = time.monotonic() - SEEK_SECONDS
        return {call_id: pending for call_id, pending in self._pending.items() if pending.since < before}

    def _give_up_lost(self, asked: dict[str, _Pending]) -> None:
        for call_id, pending in asked.items():
            if pending.write and pending.misses >= MISSES_WRITE:
                self._fail(call_id, OutcomeUnknown("The station that performed the write was lost."))
            elif not pending.write and pending.misses >= MISSES_READ:
                self._fail(call_id, Unavailable("The station that held the call was lost."))

    def _publish_quietly(self, subject: str, payload: bytes, reply: str = "") -> None:
        with contextlib.suppress(NotConnected, PayloadTooLarge):
            self._nc.lean_publish(subject, payload, reply=reply)


__all__ = ["Busy", "Delivery", "Submissions"]
