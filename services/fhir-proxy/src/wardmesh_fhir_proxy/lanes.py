"""Courtesy and protection per upstream: places, published rates, a circuit, a retry budget (PX-9, B-16)."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from wardmesh_common.errors import Busy, PlatformDown, RateLimited
from wardmesh_fhir_proxy.descriptor import Descriptor, Rate

Clock = Callable[[], float]

FAILURES_TO_OPEN = 5
FIRST_OPEN_SECONDS = 0.5  # doubled with every probe that fails, so that a short outage is over soon
OPEN_SECONDS = 10.0
PATIENCE_SECONDS = 1.5  # how long a call may wait for its turn under a rate
MARGIN_SECONDS = 0.2  # calls take different times to arrive, a new connection longest
RETRY_SHARE = 0.1
RETRY_RESERVE = 10.0
PRINCIPALS_KEPT = 10_000


class Window:
    """At most `size` calls in any stretch of `seconds`: what is published counts from whatever moment one looks.

    A bucket that refills would let twice as many through in the stretch that begins with a full one.
    """

    def __init__(self, size: float, seconds: float, clock: Clock) -> None:
        calls = max(1, int(size))
        self._seconds = max(seconds, calls / size * seconds) + MARGIN_SECONDS
        self._clock = clock
        self._taken: deque[float] = deque(maxlen=calls)

    def wait(self) -> float:
        """Seconds until a call may go; 0 = now."""
        if len(self._taken) < (self._taken.maxlen or 0):
            return 0.0
        return max(0.0, self._taken[0] + self._seconds - self._clock())

    def take(self) -> None:
        self._taken.append(self._clock())


class Budget:
    """The published rates of one platform, per second, hour and day, and per principal and hour."""

    def __init__(self, rate: Rate, clock: Clock) -> None:
        windows = ((rate.rps, 1.0), (rate.hourly, 3600.0), (rate.daily, 86400.0))
        self._shared = [Window(size, seconds, clock) for size, seconds in windows if size]
        self._each = rate.hourly_per_principal
        self.limited = bool(self._shared or self._each)
        self._principals: OrderedDict[str, Window] = OrderedDict()
        self._clock = clock

    async def turn(self, principal: str, patience: float) -> None:
        """Wait a little for the turn of this call; raises RateLimited when the turn is too far away."""
        windows = [*self._shared, *self._own(principal)]
        end = self._clock() + min(patience, PATIENCE_SECONDS)
        while windows:
            wait = max(window.wait() for window in windows)
            if wait <= 0:
                for window in windows:
                    window.take()
                return
            if self._clock() + wait > end:
                raise RateLimited("The platform's rate limit is reached.", retry_after=int(wait) + 1)
            await asyncio.sleep(wait)

    def _own(self, principal: str) -> list[Window]:
        if not self._each:
            return []
        window = self._principals.pop(principal, None) or Window(self._each, 3600.0, self._clock)
        self._principals[principal] = window
        if len(self._principals) > PRINCIPALS_KEPT:
            self._principals.popitem(last=False)
        return [window]


class Circuit:
    """Opens after failures in a row, lets one probe through after a while, closes when it succeeds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures = 0
        self._open_seconds = FIRST_OPEN_SECONDS
        self._open_until = 0.0
        self._probing = False

    def enter(self) -> None:
        if self._failures < FAILURES_TO_OPEN:
            return
        left = self._open_until - self._clock()
        if left > 0 or self._probing:
            raise PlatformDown(
                "The platform is not answering; it is left alone for a moment.", retry_after=int(left) + 1
            )
        self._probing = True

    def leave(self, *, failed: bool | None) -> None:
        """`failed=None`: the attempt said nothing about the platform's health (we gave up or were cancelled)."""
        self._probing = False
        if failed is None:
            return
        self._failures = self._failures + 1 if failed else 0
        if not failed:
            self._open_seconds = FIRST_OPEN_SECONDS
        elif self._failures >= FAILURES_TO_OPEN:
            self._open_until = self._clock() + self._open_seconds
            self._open_seconds = min(OPEN_SECONDS, self._open_seconds * 2)

    @property
    def open(self) -> bool:
        return self._failures >= FAILURES_TO_OPEN


class Lane:
    """All traffic of this replica to one base of one platform."""

    def __init__(self, descriptor: Descriptor, clock: Clock = time.monotonic) -> None:
        self.limit = descriptor.max_concurrent
        self.circuit = Circuit(clock)
        self.budget = Budget(descriptor.rate, clock)
        self._places = asyncio.Semaphore(self.limit)
        self._waiting = 0
        self._streams = 0
        self._retries = RETRY_RESERVE

    async def enter(self, principal: str, patience: float) -> None:
        """Take one of the concurrent places, in turn with the published rate; give it back with `leave`."""
        self.circuit.enter()
        try:
            if self._places.locked():
                await self._wait_for_place(patience)
            else:
                await self._places.acquire()
        except BaseException:
            self.circuit.leave(failed=None)
            raise
        try:
            if self.budget.limited:  # last: what is counted is sent at once
                await self.budget.turn(principal, patience)
        except BaseException:
            self.leave(failed=None)
            raise

    def leave(self, *, failed: bool | None) -> None:
        self._places.release()
        self.circuit.leave(failed=failed)

    def begin_stream(self) -> None:
        """The answer has begun, which says that the platform is well; its place stays taken until `end_stream`.

        A reader may be slow: half of the places are kept for the calls of others. Raises Busy, and nothing is taken.
        """
        if self._streams >= max(1, self.limit // 2):
            raise Busy("Too many large answers of this platform are under way.", retry_after=5)
        self._streams += 1
        self.circuit.leave(failed=False)

    def end_stream(self) -> None:
        self._streams -= 1
        self._places.release()

    async def _wait_for_place(self, patience: float) -> None:
        if self._waiting >= self.limit:
            raise Busy("The platform's queue is full.", retry_after=1)
        self._waiting += 1
        try:
            async with asyncio.timeout(patience):
                await self._places.acquire()
        except TimeoutError:
            raise Busy("No free place at the platform in time.", retry_after=1) from None
        finally:
            self._waiting -= 1

    def count_request(self) -> None:
        self._retries = min(RETRY_RESERVE, self._retries + RETRY_SHARE)

    def may_retry(self) -> bool:
        """Retries are at most a tenth of the requests, after a small reserve."""
        if self._retries < 1.0:
            return False
        self._retries -= 1.0
        return True
