"""Natural batching of audit leaves: what queues up while a publish is in flight is the next message."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

MAX_EVENTS = 128
MAX_BYTES = 512 * 1024
IN_FLIGHT = 2
QUEUE_EVENTS = 4096
_RETRY_FIRST_SECONDS = 0.025
_RETRY_LAST_SECONDS = 1.0

_log = logging.getLogger("wardmesh.record")

# Sends one message and returns only when the stream has stored it; anything else is an exception.
Publish = Callable[[bytes, str], Awaitable[None]]


class Ticket:
    """The receipt for the leaves of one call: true when the stream acknowledged every one in time."""

    __slots__ = ("future", "left")

    def __init__(self, leaves: int, future: asyncio.Future[bool]) -> None:
        self.left = leaves
        self.future = future

    def acknowledge(self) -> None:
        self.left -= 1
        if self.left == 0 and not self.future.done():
            self.future.set_result(True)

    def expire(self) -> None:
        if not self.future.done():
            self.future.set_result(False)


_Entry = tuple[bytes, int, Ticket | None]  # a leaf, its number, who waits for it


class Batcher:
    """A bounded queue in front of at most two publishes; no timer anywhere."""

    def __init__(
        self,
        publish: Publish,
        *,
        name: str,
        capacity: int = QUEUE_EVENTS,
        on_return: Callable[[float], None] | None = None,
    ) -> None:
        self._on_return = on_return  # told how many seconds the stream was away
        self._away_since: float | None = None
        self._publish = publish
        self._name = name  # <producer id>.<epoch>, the first part of every Nats-Msg-Id
        self._capacity = capacity
        self._queue: deque[_Entry] = deque()
        self._flights: dict[asyncio.Task[None], int] = {}  # and the first number in each
        self._woken = False
        self._pending = 0
        self.messages = 0
        self.events = 0

    @property
    def pending(self) -> int:
        """Leaves handed over and not yet acknowledged."""
        return self._pending

    def room(self, leaves: int) -> bool:
        return len(self._queue) + leaves <= self._capacity

    def queue(self, leaf: bytes, seq: int, ticket: Ticket | None = None) -> None:
        """Queues one leaf. Whoever waits for it has asked for room before the leaf got its number.

        What nobody waits for (corrections, status events) has no ticket and is never refused.
        """
        self._pending += 1
        self._queue.append((leaf, seq, ticket))
        if not self._woken and len(self._flights) < IN_FLIGHT:
            # The flush runs at the end of this turn of the loop: calls that end in the same turn share it.
            self._woken = True
            asyncio.get_running_loop().call_soon(self._fly)

    def acknowledged_through(self, seq: int) -> bool:
        """True when the stream has every leaf up to this number."""
        waiting = [*self._flights.values(), *([self._queue[0][1]] if self._queue else ())]
        return all(first > seq for first in waiting)

    async def drain(self) -> None:
        """Returns when everything queued has been acknowledged."""
        while self._queue or self._flights:
            self._fly()
            await asyncio.wait(tuple(self._flights), return_when=asyncio.FIRST_COMPLETED)

    def abandon(self) -> int:
        """Gives up (shutdown only): cancels what is in flight, returns how many leaves stay unacknowledged."""
        left, self._pending = self._pending, 0
        for flight in tuple(self._flights):
            flight.cancel()
        self._queue.clear()
        return left

    def _fly(self) -> None:
        self._woken = False
        while self._queue and len(self._flights) < IN_FLIGHT:
            entries = self._take()
            flight = asyncio.create_task(self._send(entries))
            self._flights[flight] = entries[0][1]
            flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.pop(flight, None)
        if self._queue and not flight.cancelled():
            self._fly()

    def _take(self) -> list[_Entry]:
        taken: list[_Entry] = []
        size = 0
        while self._queue and len(taken) < MAX_EVENTS:
            size += len(self._queue[0][0]) + 1
            if taken and size > MAX_BYTES:
                break
            taken.append(self._queue.popleft())
        return taken

    async def _send(self, entries: list[_Entry]) -> None:
        body = b"\n".join([leaf for leaf, _, _ in entries])
        message_id = f"{self._name}.{entries[0][1]}-{entries[-1][1]}"
        pause = _RETRY_FIRST_SECONDS
        while True:
            try:
                await self._publish(body, message_id)
                self._back()
                break
            except Exception as error:  # noqa: BLE001 - the edge to the broker: whatever went wrong, the record is not stored
                _log.warning("audit publish failed (%s), retrying the same bytes", type(error).__name__)
                self._away_since = self._away_since or asyncio.get_running_loop().time()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RETRY_LAST_SECONDS)
        self.messages += 1
        self.events += len(entries)
        self._pending -= len(entries)
        for _, _, ticket in entries:
            if ticket is not None:
                ticket.acknowledge()

    def _back(self) -> None:
        if self._away_since is None:
            return
        seconds, self._away_since = asyncio.get_running_loop().time() - self._away_since, None
        if self._on_return is not None:
            self._on_return(seconds)
