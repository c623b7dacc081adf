"""Recording in a station: no reply leaves before the stream has acknowledged its audit events (AR-3)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from wardmesh_common.batcher import QUEUE_EVENTS, Batcher, Ticket
from wardmesh_common.contracts import ASK_KEY, RECORD, Call, Outcome, Touched
from wardmesh_common.errors import AuditUnavailable
from wardmesh_common.leaf import Draft, draft_events, status_draft, withheld
from wardmesh_common.questions import KeyAnswer, KeyQuestion
from wardmesh_common.record_keys import KeyRing
from wardmesh_common.record_nats import BusPublisher
from wardmesh_common.record_seal import OpenKey
from wardmesh_common.stamp import Stamp

if TYPE_CHECKING:
    from wardmesh_common.bus import Bus

DEADLINE_SECONDS = 0.25
CLOSE_SECONDS = 5.0

_log = logging.getLogger("wardmesh.record")


class Publisher(Protocol):
    """Stores one message durably: returns only after the stream's acknowledgement, raises otherwise."""

    async def publish(self, subject: str, data: bytes, msg_id: str) -> None: ...


def open_recorder(bus: Bus) -> Recorder:
    """The recorder of a service: publishes on its bus and asks audit for keys over it."""

    async def ask(question: KeyQuestion) -> KeyAnswer:
        return await bus.ask(ASK_KEY, question, KeyAnswer)

    return Recorder(BusPublisher(bus), KeyRing(ask), service=bus.service, instance=bus.instance)


class _Handed:
    """Events handed to the batcher for one call, kept until we know whether a correction is due."""

    __slots__ = ("drafts", "ids", "ticket")

    def __init__(self, drafts: Sequence[Draft], ids: list[str], ticket: Ticket) -> None:
        self.drafts = drafts
        self.ids = ids
        self.ticket = ticket


class Recorder:
    """Builds, seals, batches, publishes; what records returns after the acknowledgement or raises."""

    def __init__(
        self,
        publisher: Publisher,
        keys: KeyRing,
        *,
        service: str,
        instance: str,
        subject: str = f"{RECORD}.0",
        deadline_seconds: float = DEADLINE_SECONDS,
        capacity: int = QUEUE_EVENTS,
    ) -> None:
        self._publisher = publisher
        self._keys = keys
        self._subject = subject
        self._deadline = deadline_seconds
        self._stamp = Stamp(service, instance)
        self._batcher = Batcher(self._publish, name=f"{instance}.{self._stamp.epoch}", capacity=capacity)
        self._running: set[asyncio.Task[Any]] = set()
        self._started = False
        self._closed = False

    @property
    def pending(self) -> int:
        """Events handed over and not yet acknowledged."""
        return self._batcher.pending

    @property
    def messages(self) -> int:
        return self._batcher.messages

    @property
    def epoch(self) -> str:
        return self._stamp.epoch

    @property
    def next_seq(self) -> int:
        return self._stamp.next_seq

    async def outcome(self, call: Call, outcome: Outcome) -> None:
        """Records how a call ended. Only after this returns may anything of the answer leave."""
        await self._record(draft_events(call, outcome, outcome.touched, self._stamp.now()))

    async def intent(self, call: Call, touched: tuple[Touched, ...]) -> None:
        """Records that a write is about to happen. Only after this returns may it be sent to the platform."""
        await self._record(draft_events(call, None, touched, self._stamp.now()))

    async def status(
        self, reason: str, facts: dict[str, Any] | None = None, *, event_class: str = "audit_status"
    ) -> None:
        """Records an event about the audit itself, or about its keys; `facts` hold numbers and codes only."""
        await self._record([status_draft(reason, self._stamp.service, facts, event_class=event_class)])

    def foresee(self, call: Call, patients: Iterable[str] = ()) -> None:
        """Asks for the keys a record of this call will need, beside other work; never waits, never fails."""
        tenant = call.principal.tenant if call.principal else "default"
        wanted = {name for draft in draft_events(call, None, (), 0.0) for name in draft.subjects}
        task = asyncio.ensure_future(self._warm(tenant, wanted | set(patients)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Emits the closing counter and waits for what is queued, five seconds at most."""
        if self._closed:
            return
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=CLOSE_SECONDS)
        if self._started:
            draft = status_draft("stop", self._stamp.service, {"last_seq": self._stamp.next_seq})
            leaf, seq, _ = self._stamp.leaf(draft, {})
            self._batcher.add(leaf, seq)
        self._closed = True
        try:
            await asyncio.wait_for(self._batcher.drain(), CLOSE_SECONDS)
        except TimeoutError:
            _log.error("audit queue not empty at stop: %d events lost", self._batcher.abandon())

    async def _publish(self, body: bytes, message_id: str) -> None:
        await self._publisher.publish(self._subject, body, message_id)

    async def _record(self, drafts: list[Draft]) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._deadline
        handed = self._hand_over_now(drafts)
        if handed is None:
            # The keys are asked for in a task of its own: a caller that hangs up does not cancel its record.
            task = loop.create_task(self._lend_and_wait(drafts, until))
            self._running.add(task)
            task.add_done_callback(self._settled)
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                task.add_done_callback(self._hung_up)
                raise
            return
        await self._acknowledged(handed, until)

    def _hand_over_now(self, drafts: list[Draft]) -> _Handed | None:
        """Hands the events over when every key is at hand; None when keys have to be asked for first."""
        wanted = {name for draft in drafts for name in draft.subjects}
        if not wanted:
            return self._hand_over(drafts, {})
        keys = self._keys.held(drafts[0].tenant, wanted)
        return None if keys is None else self._hand_over(drafts, keys)

    async def _lend_and_wait(self, drafts: list[Draft], until: float) -> _Handed:
        wanted = {name for draft in drafts for name in draft.subjects}
        left = until - asyncio.get_running_loop().time()
        try:
            keys = await asyncio.wait_for(self._keys.lend(drafts[0].tenant, wanted), left)
        except (TimeoutError, AuditUnavailable) as error:
            self._unsealed(drafts)
            raise AuditUnavailable("The record could not be sealed.", retry_after=1) from error
        handed = self._hand_over(drafts, keys)
        await self._acknowledged(handed, until)
        return handed

    def _hand_over(self, drafts: Sequence[Draft], keys: dict[str, OpenKey]) -> _Handed:
        """From here on the events are on their way. Synchronous, so that the counter stays dense."""
        if self._closed:
            raise AuditUnavailable("Recording has stopped.", retry_after=1)
        if not self._batcher.room(len(drafts) + 1):
            raise AuditUnavailable("The audit queue is full.", retry_after=1)
        self._start()
        leaves: list[tuple[bytes, int]] = []
        ids: list[str] = []
        for draft in drafts:
            leaf, seq, event_id = self._stamp.leaf(draft, keys)
            leaves.append((leaf, seq))
            ids.append(event_id)
        return _Handed(drafts, ids, self._batcher.offer(leaves))

    async def _acknowledged(self, handed: _Handed, until: float) -> None:
        ticket = handed.ticket
        loop = asyncio.get_running_loop()
        expiry = loop.call_at(until, ticket.expire)
        try:
            acknowledged = await ticket.future
        except asyncio.CancelledError:
            self._correct(handed, "abandoned")
            raise
        finally:
            expiry.cancel()
        if not acknowledged:
            self._correct(handed, "audit_unavailable")
            raise AuditUnavailable("The record was not acknowledged in time.", retry_after=1)

    def _correct(self, handed: _Handed, reason: str) -> None:
        for draft, event_id in zip(handed.drafts, handed.ids, strict=True):
            if draft.event_class != "audit_status":
                self._add_unsealed(withheld(draft, event_id, reason))

    def _unsealed(self, drafts: Sequence[Draft]) -> None:
        """Without a key nothing may be written about the patient; that an answer was held back can be."""
        for draft in drafts:
            if self._batcher.room(1):
                self._add_unsealed(withheld(draft, "", "key_unavailable"))

    def _add_unsealed(self, draft: Draft) -> None:
        if self._closed:
            return
        self._start()
        leaf, seq, _ = self._stamp.leaf(draft, {})
        self._batcher.add(leaf, seq)

    def _start(self) -> None:
        if not self._started:
            self._started = True
            leaf, seq, _ = self._stamp.leaf(status_draft("start", self._stamp.service), {})
            self._batcher.add(leaf, seq)

    async def _warm(self, tenant: str, wanted: set[str]) -> None:
        try:
            await asyncio.wait_for(self._keys.lend(tenant, wanted), self._deadline)
        except (AuditUnavailable, TimeoutError):
            _log.info("audit keys not at hand yet")

    def _settled(self, task: asyncio.Task[_Handed]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # marked as seen: the caller may be gone

    def _hung_up(self, task: asyncio.Task[_Handed]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._correct(task.result(), "abandoned")
