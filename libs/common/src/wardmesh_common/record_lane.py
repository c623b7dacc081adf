"""One log as a producer sees it: its own epoch, its own dense counter, its own queue, its own spool."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from wardmesh_common.batcher import Batcher, Publish
from wardmesh_common.leaf import Draft, status_draft
from wardmesh_common.record_seal import OpenKey
from wardmesh_common.spool import Spool
from wardmesh_common.stamp import Stamp

if TYPE_CHECKING:
    from wardmesh_common.recorder import Publisher

_LOOK_SECONDS = 0.2
_AWAY_SECONDS = 1.0  # a shorter pause is a retry
_log = logging.getLogger("wardmesh.record")


class Lane:
    """Stamps and queues the events of one log."""

    def __init__(self, publish: Publish, stamp: Stamp, log: int, *, capacity: int, spool_dir: Path | None) -> None:
        name = f"{stamp.producer}.{stamp.epoch}"
        self.stamp = stamp
        self.batcher = Batcher(publish, name=name, capacity=capacity, on_return=self._returned)
        self._spool = Spool(spool_dir, f"{name}@{log}") if spool_dir is not None else None
        self._spooled: tuple[int, int] | None = None  # first and last number that lie in the spool
        self._delivery: asyncio.Task[None] | None = None
        self._started = False

    def start(self) -> None:
        if not self._started:
            self._started = True
            self.add(status_draft("start", self.stamp.service))

    def stop(self) -> None:
        """The closing counter."""
        if self._started:
            self.add(status_draft("stop", self.stamp.service, {"last_seq": self.stamp.next_seq}))

    def add(self, draft: Draft) -> None:
        """An event nobody waits for, without a seal."""
        leaf, seq, _ = self.stamp.leaf(draft, {})
        self.batcher.queue(leaf, seq)

    async def spool(self, leaves: Sequence[tuple[bytes, int]]) -> bool:
        """True when the leaves, which stay queued as well, are on the local disk. They are sent from the queue."""
        if self._spool is None:
            return False
        try:
            await asyncio.to_thread(self._spool.keep, [leaf for leaf, _ in leaves])
        except OSError as error:
            _log.error("audit spool: %s", type(error).__name__)
            return False
        first, last = leaves[0][1], leaves[-1][1]
        kept = self._spooled
        self._spooled = (first, last) if kept is None else (min(kept[0], first), max(kept[1], last))
        if self._delivery is None or self._delivery.done():
            self._delivery = asyncio.create_task(self._delivered())
        return True

    def _returned(self, seconds: float) -> None:
        """Loss and return of the transport are one event: before the return nothing can be recorded."""
        if seconds >= _AWAY_SECONDS:
            self.add(status_draft("transport_returned", self.stamp.service, {"away_ms": round(seconds * 1000)}))

    def end(self) -> None:
        """What is spooled and not delivered is left to the next process on this machine."""
        if self._delivery is not None:
            self._delivery.cancel()

    async def _delivered(self) -> None:
        """When the stream has everything that was spooled, one event says which numbers these were."""
        while self._spooled is not None:
            first, last = self._spooled
            if self.batcher.acknowledged_through(last):
                self._spooled = None
                self.add(spooled_draft(self.stamp.service, self.stamp.producer, self.stamp.epoch, first, last))
                if self._spool is not None:
                    self._spool.clear()
                return
            await asyncio.sleep(_LOOK_SECONDS)


def lane_of(draft: Draft, keys: Mapping[str, OpenKey], lanes: int) -> int:
    """All events of one patient lie in one log; without a patient the tenant decides."""
    if lanes == 1:
        return 0
    key = keys.get(draft.patient) if draft.patient else None
    return zlib.crc32((key.pseudonym if key else draft.tenant).encode()) % lanes


def spooled_draft(service: str, producer: str, epoch: str, first: int, last: int) -> Draft:
    facts = {"producer": producer, "epoch": epoch, "first_seq": first, "last_seq": last}
    return status_draft("spooled", service, facts)


class _Producer(Struct):
    id: str
    epoch: str
    seq: int


class _Data(Struct):
    producer: _Producer


class _Event(Struct):
    data: _Data


_decoder = msgspec.json.Decoder(_Event)


async def deliver_left(publisher: Publisher, subject: str, name: str, leaves: Sequence[bytes]) -> _Producer | None:
    """Sends what a process that is gone has spooled: the same bytes, so that what arrived already is a duplicate.

    Returns the producer with its last number. Raises what the publisher raises.
    """
    last: _Producer | None = None
    for start in range(0, len(leaves), 100):
        part = leaves[start : start + 100]
        await publisher.publish(subject, b"\n".join(part), f"spool.{name}.{start}-{start + len(part) - 1}")
        last = _decoder.decode(part[-1]).data.producer
    return last
