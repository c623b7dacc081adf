"""One station of the journey: take a call, let the handler stamp or end it, record every ending, hand on or reply."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from wardmesh_common.budget import Budgets
from wardmesh_common.contracts import Call, Outcome, Touched, decode_call, encode
from wardmesh_common.deadline import Deadlines
from wardmesh_common.errors import (
    AuditUnavailable,
    Busy,
    Internal,
    Problem,
    TimedOut,
    Unavailable,
    WardmeshError,
)
from wardmesh_common.lean import LeanClient, NotConnected, PayloadTooLarge, header_block, status_of
from wardmesh_common.replies import reply_of
from wardmesh_common.telemetry import Telemetry
from wardmesh_common.transfer import ABANDONED, INLINE_BYTES, Sent, Transfers

# How long a handed-on call is remembered, so that "no responders" can be answered for it.
REMEMBER_SECONDS = 1.0
# Time that a station keeps for recording and replying after its handler.
ENDING_SECONDS = 0.3


class Recorder(Protocol):
    """Writes the audit record of a call; both return only after the acknowledgement (AR-3)."""

    async def intent(self, call: Call, touched: tuple[Touched, ...]) -> None: ...

    async def outcome(self, call: Call, outcome: Outcome) -> None: ...

    async def status(self, reason: str, facts: dict[str, Any] | None = None) -> None: ...


class Hop:
    """What a handler may ask about the call in its hands."""

    __slots__ = ("_expires", "_fetch", "fallback", "onward")

    def __init__(self, expires: float, onward: str, fetch: Callable[[], Awaitable[bytes]]) -> None:
        self._expires = expires
        self._fetch = fetch
        self.onward = onward  # the subject that the stamped call goes to
        self.fallback = ""  # tried once when nobody listens on `onward`

    def remaining(self) -> float:
        """Seconds left for this call, recording and reply included."""
        return self._expires - time.monotonic()

    async def body(self) -> bytes:
        """The request body, fetched from the gateway when it was parked there."""
        return await self._fetch()


Handler = Callable[[Call, Hop], Awaitable[Call | Outcome]]


class Station:
    """Consumes one subject (and its per-instance twin) in the service's queue group."""

    def __init__(
        self,
        nc: LeanClient,
        handler: Handler,
        recorder: Recorder,
        transfers: Transfers,
        budgets: Budgets,
        *,
        telemetry: Telemetry,
        service: str,
        onward: str,
        limit: int,
    ) -> None:
        self._nc = nc
        self._handler = handler
        self._recorder = recorder
        self._transfers = transfers
        self._budgets = budgets
        self._telemetry = telemetry
        self._service = service
        self._onward = onward
        self._limit = limit
        self._log = logging.getLogger(f"wardmesh.{service}")
        self._deadlines = Deadlines()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._ending: set[str] = set()
        self._refusing: set[asyncio.Task[None]] = set()
        self._handed: dict[str, tuple[Call, str]] = {}
        self._handed_before: dict[str, tuple[Call, str]] = {}
        self._swapped_at = 0.0
        self.latency_seconds = 0.0  # moving average of the handler's time

    @property
    def in_flight(self) -> int:
        return len(self._running)

    def holds(self, call_id: str) -> bool:
        return call_id in self._running

    def cancel(self, call_id: str) -> None:
        """The caller hung up: stop the work; the running task records `abandoned`.

        A call whose end is being recorded goes on: an attempt that happened is recorded as what it was.
        """
        task = self._running.get(call_id)
        if task is not None and call_id not in self._ending:
            task.cancel()

    def on_message(self, _subject: bytes, reply: bytes, data: bytes, _header: bytes | None) -> None:
        """A call arrived. Runs inside the read loop: decode, admit, start a task, nothing else (NB-3)."""
        try:
            call = decode_call(data)
        except (msgspec.DecodeError, msgspec.ValidationError):
            self._refuse_unreadable(reply.decode())
            return
        sender = reply.split(b".", 2)[1] if reply.count(b".") > 1 else reply
        left = self._budgets.remaining(sender, call.sent_at, call.remaining_ms)
        if len(self._running) >= self._limit:
            self._start_refusal(call, left, Busy("The service is at its limit.", retry_after=1))
        elif left <= min(self.latency_seconds, ENDING_SECONDS):
            self._start_refusal(call, left, TimedOut("The call ran out of time before it was handled."))
        else:
            task = asyncio.create_task(self._run(call, time.monotonic() + left))
            self._running[call.id] = task
            task.add_done_callback(lambda _: self._running.pop(call.id, None))

    def on_hop_answer(self, call_id: str, header: bytes | None) -> None:
        """Something came back for a call that was handed on: nobody there, or it could not be read (AR-4)."""
        handed = self._handed.pop(call_id, None) or self._handed_before.pop(call_id, None)
        if handed is None:
            return
        call, fallback = handed
        left = call.remaining_ms / 1000 - (time.time() - call.sent_at)
        if status_of(header) != 503:
            self._start_refusal(call, left, Internal("A station could not read the call."))
        elif fallback:
            self._hand_on(call, fallback, "", left)
        else:
            self._start_refusal(call, left, Unavailable(f"No instance of {next_station(self._onward)} is up."))

    async def settle(self) -> None:
        """Wait for everything that runs; called while draining, after the subscription is gone (NB-8)."""
        while self._running or self._refusing:
            await asyncio.wait([*self._running.values(), *self._refusing])

    # --- one call ---

    async def _run(self, call: Call, expires: float) -> None:
        started = time.monotonic()
        hop = Hop(expires, self._onward, lambda: self._fetch_body(call, expires))
        with self._telemetry.station_span(self._service, call):
            outcome = await self._handle(call, hop, expires)
        took = time.monotonic() - started
        self.latency_seconds += (took - self.latency_seconds) * 0.1
        if outcome is not None:
            await self._end(call, outcome, expires)

    async def _handle(self, call: Call, hop: Hop, expires: float) -> Outcome | None:  # noqa: PLR0911
        """The handler's outcome, or None when the call was handed on."""
        try:
            with self._deadlines.within(expires - time.monotonic() - ENDING_SECONDS):
                result = await self._handler(call, hop)
            if isinstance(result, Outcome):
                return result
            self._hand_on(result, hop.onward, hop.fallback, hop.remaining())
            return None
        except WardmeshError as error:
            return outcome_of(error)
        except TimeoutError:
            return outcome_of(TimedOut(f"The {self._service} station did not answer in time."))
        except NotConnected:
            return outcome_of(Unavailable("The bus is not reachable."))
        except PayloadTooLarge:
            return outcome_of(Internal("The stamped call is too large for the bus."))
        except asyncio.CancelledError:
            return abandoned(self._service)
        except Exception:  # noqa: BLE001
            # The edge of the station: a bug of ours becomes an answer at once, never the caller's time-out (NB-6).
            self._log.exception("unexpected failure in the handler")
            return outcome_of(Internal("Something went wrong inside the mesh."), expected=False)

    def _hand_on(self, call: Call, subject: str, fallback: str, left: float) -> None:
        now = time.monotonic()
        if now - self._swapped_at > REMEMBER_SECONDS:
            self._handed_before, self._handed, self._swapped_at = self._handed, {}, now
        call.sent_at = time.time()
        call.remaining_ms = max(0, int(left * 1000))
        self._handed[call.id] = (call, fallback)
        self._nc.lean_publish(subject, encode(call), reply=f"{self._nc.inbox}.w.n.{call.id}")

    async def _end(self, call: Call, outcome: Outcome, expires: float) -> None:
        """Record, then reply: no record, no data (AR-3). Not cancellable by `cancel`: a reply that nobody waits for is
        refused by the gateway, and what was under way is recorded."""
        outcome.headers.setdefault("x-wardmesh-station", self._service)
        self._ending.add(call.id)
        try:
            try:
                await self._recorder.outcome(call, outcome)
            except AuditUnavailable as error:
                await _closed(outcome)
                outcome = outcome_of(error)
            sent = await self._reply(call, outcome, expires)
            if sent.broken is not None:
                await self._record_broken(call, sent)
        except NotConnected:
            self._log.warning("the bus was lost before the reply; the call is recorded")
        finally:
            self._ending.discard(call.id)
            await _closed(outcome)

    async def _record_broken(self, call: Call, sent: Sent) -> None:
        """An answer that did not leave whole: its record says that it was given, so another says how far (ADR 36)."""
        problem = sent.broken
        assert problem is not None, "only what broke off comes here"
        try:
            await self._recorder.outcome(call, broken_off(problem, sent.size))
        except AuditUnavailable:
            self._log.warning("an answer broke off; its record is not acknowledged yet")

    async def _reply(self, call: Call, outcome: Outcome, expires: float) -> Sent:
        reply = reply_of(call, outcome, self._service)
        subject = call.reply_to.removesuffix(".c") + ".d"
        if outcome.stream is not None:
            reply.chunked_bytes, reply.streamed = outcome.stream.size, True
            reply.credit_to = f"{self._nc.inbox}.w.k"
            self._transfers.open(call.id)
            self._nc.lean_publish(call.reply_to, encode(reply))
            return await self._transfers.send_stream(call.id, subject, outcome.stream)
        if len(outcome.body) <= INLINE_BYTES:
            reply.body = outcome.body
            self._nc.lean_publish(call.reply_to, encode(reply))
            return Sent(len(outcome.body))
        reply.chunked_bytes = len(outcome.body)
        reply.credit_to = f"{self._nc.inbox}.w.k"
        self._transfers.open(call.id)
        self._nc.lean_publish(call.reply_to, encode(reply))
        return await self._transfers.send(call.id, subject, outcome.body, max(1.0, expires - time.monotonic()))

    async def _fetch_body(self, call: Call, expires: float) -> bytes:
        if call.parked is None:
            return call.body
        return await self._transfers.fetch(call.id, call.parked, expires - time.monotonic())

    # --- refusals outside a handler ---

    def _start_refusal(self, call: Call, left: float, error: WardmeshError) -> None:
        expires = time.monotonic() + max(left, ENDING_SECONDS)
        task = asyncio.create_task(self._end(call, outcome_of(error), expires))
        self._refusing.add(task)
        task.add_done_callback(self._refusing.discard)

    def _refuse_unreadable(self, reply: str) -> None:
        """Only the sender can answer for it: it knows the call. ADR-32 header names, so that nats tools show it."""
        self._log.error("a message that is not a Call arrived")
        if reply.startswith("_INBOX_"):
            header = header_block(Nats_Service_Error="unreadable call", Nats_Service_Error_Code="400")
            self._nc.lean_publish(reply, b"", header=header)


async def _closed(outcome: Outcome) -> None:
    if outcome.stream is not None:
        await outcome.stream.close()


def next_station(onward: str) -> str:
    """`call.decide` -> `policy`: how a missing station is named to the caller."""
    names = {"call.identify": "auth", "call.decide": "policy", "call.perform.fhir": "fhir-proxy"}
    return names.get(onward, onward.rpartition(".")[2])


def outcome_of(error: WardmeshError, *, expected: bool = True) -> Outcome:
    problem = error.problem
    return Outcome(status=problem.status, problem=problem, expected=expected, event=error.event)


def abandoned(station: str) -> Outcome:
    """The caller hung up. 499 never reaches anyone; it stands in the record."""
    return Outcome(status=499, problem=msgspec.structs.replace(ABANDONED, station=station))


def broken_off(problem: Problem, size: int) -> Outcome:
    """How an answer ended that was recorded before its first byte: after so many bytes it broke off."""
    return Outcome(status=problem.status, problem=problem, broken_after=size)
