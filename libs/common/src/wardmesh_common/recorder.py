"""Recording in a station: no reply leaves before the stream has acknowledged its audit events (AR-3)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from wardmesh_common.batcher import QUEUE_EVENTS, Publish, Ticket
from wardmesh_common.contracts import ASK_KEY, RECORD, Call, Outcome, Touched
from wardmesh_common.errors import AuditUnavailable
from wardmesh_common.leaf import Draft, draft_events, status_draft, withheld
from wardmesh_common.questions import KeyAnswer, KeyQuestion
from wardmesh_common.record_keys import KeyRing
from wardmesh_common.record_lane import Lane, deliver_left, lane_of, spooled_draft
from wardmesh_common.record_nats import BusPublisher
from wardmesh_common.record_seal import OpenKey
from wardmesh_common.spool import left_behind
from wardmesh_common.stamp import Stamp
from wardmesh_common.vocabulary import is_write

if TYPE_CHECKING:
    from wardmesh_common.bus import Bus

DEADLINE_SECONDS = 0.25
CLOSE_SECONDS = 5.0
_SPOOL_SECONDS = 1.0

_log = logging.getLogger("wardmesh.record")


class Publisher(Protocol):
    """Stores one message durably: returns only after the stream's acknowledgement, raises otherwise."""

    async def publish(self, subject: str, data: bytes, msg_id: str) -> None: ...


def open_recorder(
    bus: Bus, *, logs: int = 1, spool_dir: Path | None = None, deadline_seconds: float = DEADLINE_SECONDS
) -> Recorder:
    """The recorder of a service: publishes on its bus and asks audit for keys over it."""

    async def ask(question: KeyQuestion) -> KeyAnswer:
        return await bus.ask(ASK_KEY, question, KeyAnswer)

    return Recorder(
        BusPublisher(bus),
        KeyRing(ask),
        service=bus.service,
        instance=bus.instance,
        logs=logs,
        spool_dir=spool_dir,
        deadline_seconds=deadline_seconds,
    )


class _Handed:
    """Events handed over for one call, kept until we know whether a correction is due."""

    __slots__ = ("drafts", "stamped", "ticket")

    def __init__(self, drafts: Sequence[Draft], ticket: Ticket) -> None:
        self.drafts = drafts
        self.ticket = ticket
        self.stamped: list[tuple[int, bytes, int, str]] = []  # log, leaf, its number there, event id


class Recorder:
    """Builds, seals, batches, publishes; what records returns after the acknowledgement or raises."""

    def __init__(
        self,
        publisher: Publisher,
        keys: KeyRing,
        *,
        service: str,
        instance: str,
        logs: int = 1,
        spool_dir: Path | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        capacity: int = QUEUE_EVENTS,
    ) -> None:
        self._publisher = publisher
        self._keys = keys
        self._deadline = deadline_seconds
        self._service = service
        self._spool_dir = spool_dir
        self._lanes = [
            Lane(self._publish_to(log), Stamp(service, instance), log, capacity=capacity, spool_dir=spool_dir)
            for log in range(logs)
        ]
        self._stamp = self._lanes[0].stamp
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def pending(self) -> int:
        """Events handed over and not yet acknowledged."""
        return sum(lane.batcher.pending for lane in self._lanes)

    @property
    def messages(self) -> int:
        return sum(lane.batcher.messages for lane in self._lanes)

    @property
    def epoch(self) -> str:
        return self._stamp.epoch

    @property
    def next_seq(self) -> int:
        return self._stamp.next_seq

    async def outcome(self, call: Call, outcome: Outcome) -> None:
        """Records how a call ended. Only after this returns may anything of the answer leave."""
        drafts = draft_events(call, outcome, outcome.touched, self._stamp.now())
        await self._record(drafts, spool=_may_spool(call))

    async def intent(self, call: Call, touched: tuple[Touched, ...]) -> None:
        """Records what is about to happen (`announced`). Only after this returns may the platform be asked."""
        await self._record(draft_events(call, None, touched, self._stamp.now()), spool=_may_spool(call))

    async def status(
        self, reason: str, facts: dict[str, Any] | None = None, *, event_class: str = "audit_status"
    ) -> None:
        """Records an event about the audit itself, or about its keys; `facts` hold numbers and codes only."""
        await self._record([status_draft(reason, self._service, facts, event_class=event_class)])

    async def close(self) -> None:
        """Emits the closing counter and waits for what is queued, five seconds at most."""
        if self._closed:
            return
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=CLOSE_SECONDS)
        for lane in self._lanes:
            lane.stop()
        self._closed = True
        try:
            await asyncio.wait_for(asyncio.gather(*(lane.batcher.drain() for lane in self._lanes)), CLOSE_SECONDS)
        except TimeoutError:
            lost = sum(lane.batcher.abandon() for lane in self._lanes)
            _log.error("audit queue not empty at stop: %d events lost", lost)
        for lane in self._lanes:
            lane.end()

    async def resume_spools(self) -> None:
        """Delivers what processes that are gone have spooled on this machine; until it is done, or cancelled."""
        if self._spool_dir is None:
            return
        for left in left_behind(self._spool_dir):
            try:
                leaves = left.leaves()
                await self._deliver(left.name, leaves)
                left.remove()
            except asyncio.CancelledError:
                left.release()
                raise

    async def _deliver(self, name: str, leaves: list[bytes]) -> None:
        log = int(name.rpartition("@")[2])
        while True:
            try:
                last = await deliver_left(self._publisher, f"{RECORD}.{log}", name, leaves)
                break
            except Exception as error:  # noqa: BLE001 - the edge to the broker: it is tried until it is stored
                _log.warning("audit spool not delivered yet (%s)", type(error).__name__)
                await asyncio.sleep(_SPOOL_SECONDS)
        if last is not None:
            lane = self._lanes[log % len(self._lanes)]
            lane.start()
            lane.add(spooled_draft(self._service, last.id, last.epoch, last.seq - len(leaves) + 1, last.seq))

    def _publish_to(self, log: int) -> Publish:
        subject = f"{RECORD}.{log}"
        return lambda body, message_id: self._publisher.publish(subject, body, message_id)

    async def _record(self, drafts: list[Draft], *, spool: bool = False) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._deadline
        handed = self._hand_over_now(drafts)
        if handed is None:
            # The keys are asked for in a task of its own: a caller that hangs up does not cancel its record.
            task = loop.create_task(self._lend_and_wait(drafts, until, spool=spool))
            self._running.add(task)
            task.add_done_callback(self._settled)
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError:
                task.add_done_callback(self._hung_up)
                raise
            return
        await self._acknowledged(handed, until, spool=spool)

    def _hand_over_now(self, drafts: list[Draft]) -> _Handed | None:
        """Hands the events over when every key is at hand; None when keys have to be asked for first."""
        wanted = {name for draft in drafts for name in draft.subjects}
        if not wanted:
            return self._hand_over(drafts, {})
        keys = self._keys.held(drafts[0].tenant, wanted)
        return None if keys is None else self._hand_over(drafts, keys)

    async def _lend_and_wait(self, drafts: list[Draft], until: float, *, spool: bool) -> _Handed:
        wanted = {name for draft in drafts for name in draft.subjects}
        left = until - asyncio.get_running_loop().time()
        try:
            keys = await asyncio.wait_for(self._keys.lend(drafts[0].tenant, wanted), left)
        except (TimeoutError, AuditUnavailable) as error:
            self._unsealed(drafts)
            raise AuditUnavailable("The record could not be sealed.", retry_after=1) from error
        handed = self._hand_over(drafts, keys)
        await self._acknowledged(handed, until, spool=spool)
        return handed

    def _hand_over(self, drafts: Sequence[Draft], keys: dict[str, OpenKey]) -> _Handed:
        """From here on the events are on their way. Synchronous, so that the counter stays dense."""
        if self._closed:
            raise AuditUnavailable("Recording has stopped.", retry_after=1)
        lanes = self._lanes
        for lane in lanes:
            if not lane.batcher.room(len(drafts) + 1):
                raise AuditUnavailable("The audit queue is full.", retry_after=1)
        handed = _Handed(drafts, Ticket(len(drafts), asyncio.get_running_loop().create_future()))
        moment = self._stamp.moment(len(drafts))
        for draft in drafts:
            log = lane_of(draft, keys, len(lanes))
            lane = lanes[log]
            lane.start()
            leaf, seq, event_id = lane.stamp.leaf(draft, keys, moment)
            handed.stamped.append((log, leaf, seq, event_id))
            lane.batcher.queue(leaf, seq, handed.ticket)
        return handed

    async def _acknowledged(self, handed: _Handed, until: float, *, spool: bool) -> None:
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
        if not acknowledged and not (spool and await self._spool(handed)):
            self._correct(handed, "audit_unavailable")
            raise AuditUnavailable("The record was not acknowledged in time.", retry_after=1)

    async def _spool(self, handed: _Handed) -> bool:
        """True when every event of the call is on the local disk: policy lets such an answer leave."""
        for log in sorted({log for log, _, _, _ in handed.stamped}):
            leaves = [(leaf, seq) for where, leaf, seq, _ in handed.stamped if where == log]
            if not await self._lanes[log].spool(leaves):
                return False
        return True

    def _correct(self, handed: _Handed, reason: str) -> None:
        for draft, (log, _, _, event_id) in zip(handed.drafts, handed.stamped, strict=True):
            if draft.event_class != "audit_status" and not draft.follows:
                self._add_unsealed(withheld(draft, event_id, reason), log)

    def _unsealed(self, drafts: Sequence[Draft]) -> None:
        """Without a key nothing may be written about the patient; that an answer was held back can be."""
        for draft in drafts:
            log = lane_of(draft, {}, len(self._lanes))
            if self._lanes[log].batcher.room(1):
                self._add_unsealed(withheld(draft, "", "key_unavailable"), log)

    def _add_unsealed(self, draft: Draft, log: int) -> None:
        if not self._closed:
            self._lanes[log].start()
            self._lanes[log].add(draft)

    def _settled(self, task: asyncio.Task[_Handed]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # marked as seen: the caller may be gone

    def _hung_up(self, task: asyncio.Task[_Handed]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._correct(task.result(), "abandoned")


def _may_spool(call: Call) -> bool:
    """Policy lets only reads of an emergency pass without the stream; a write never does, whatever a rule says."""
    spool = call.decision is not None and call.decision.obligations.spool
    return spool and not is_write(call.interaction, call.operation)
