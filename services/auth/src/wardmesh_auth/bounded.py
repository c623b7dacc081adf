"""Two small tools of every cache in auth: a bounded map whose entries end, and one flight for many who wait."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Bounded(Generic[K, V]):
    """The least recently used entry goes when the map is full, every entry goes at its time."""

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._clock = size, clock
        self._entries: OrderedDict[K, tuple[V, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[1] <= self._clock():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: K, value: V, seconds: float) -> None:
        self._entries[key] = (value, self._clock() + seconds)
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def values(self) -> list[V]:
        return [value for value, _ in self._entries.values()]

    def drop(self, key: K) -> None:
        self._entries.pop(key, None)

    def drop_keys(self, matches: Callable[[K], bool]) -> None:
        for key in [k for k in self._entries if matches(k)]:
            del self._entries[key]

    def drop_where(self, matches: Callable[[V], bool]) -> None:
        for key in [k for k, (value, _) in self._entries.items() if matches(value)]:
            del self._entries[key]


class SingleFlight(Generic[K, V]):
    """Whoever asks for a key while it is being fetched gets the same answer or the same error."""

    def __init__(self) -> None:
        self._flights: dict[K, asyncio.Task[V]] = {}

    async def run(self, key: K, fetch: Callable[[], Awaitable[V]]) -> V:
        # Shielded: a caller that hangs up must not end the flight for the others.
        return await asyncio.shield(self.start(key, fetch))

    def start(self, key: K, fetch: Callable[[], Awaitable[V]]) -> asyncio.Task[V]:
        flight = self._flights.get(key)
        if flight is None or flight.done():  # done, but its callback has not run yet

            async def fly() -> V:
                return await fetch()

            flight = asyncio.create_task(fly(), name="single-flight")
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        return flight

    def _landed(self, key: K, flight: asyncio.Task[V]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # seen: a flight that nobody waits for any more must not warn at collection

    async def close(self) -> None:
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
