"""Rate limit per principal, shared by all replicas: a sliding window in memory, told to the others as it fills (X-10).

Each replica counts what it admits and adds what the others report. Reports leave at most every 100 ms, or at once
when one caller's unreported count reaches 5 % of the limit: n replicas together let through at most about
(n - 1) * 5 % too much. Callers are named by keyed digests; a message tells nobody who they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from msgspec import Struct

from wardmesh_common.contracts import GW_RATE
from wardmesh_common.errors import RateLimited
from wardmesh_common.questions import RateReport

SLOTS = 12
REPORT_SECONDS = 0.1
URGENT_SHARE = 0.05
MAX_CALLERS = 100_000
RETRY_AFTER_SECONDS = 60
DIGEST_BYTES = 16

Tell = Callable[[str, Struct], Awaitable[None]]


class _Window:
    """What one caller used lately: a ring of slots and their sum."""

    __slots__ = ("newest", "slots", "total")

    def __init__(self) -> None:
        self.slots = [0] * SLOTS
        self.newest = 0
        self.total = 0

    def move_to(self, slot: int) -> None:
        ahead = slot - self.newest
        if ahead >= SLOTS:
            self.slots = [0] * SLOTS
            self.total = 0
        else:
            for passed in range(self.newest + 1, slot + 1):
                self.total -= self.slots[passed % SLOTS]
                self.slots[passed % SLOTS] = 0
        if ahead > 0:
            self.newest = slot

    def add(self, slot: int, count: int) -> None:
        self.move_to(slot)
        self.slots[self.newest % SLOTS] += count
        self.total += count


class RateLimits:
    """`take` admits or refuses; everything else keeps the replicas' counts together."""

    def __init__(
        self,
        tell: Tell,
        *,
        replica: str,
        key: bytes,
        limit: int,
        window_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell = tell
        self._replica = replica
        self._key = key
        self.limit = limit
        self._slot_seconds = window_seconds / SLOTS
        self._clock = clock
        self._urgent = max(1, int(limit * URGENT_SHARE))
        self._digests: OrderedDict[str, bytes] = OrderedDict()
        self._windows: OrderedDict[bytes, _Window] = OrderedDict()
        self._unsent: dict[bytes, int] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def take(self, caller: str, limit: int = 0) -> None:
        """Count one request of that caller. Raises RateLimited when its window is full; refusals do not count.

        `limit` 0 = the general one. A caller's name always comes with the same limit.
        """
        digest = self._digest(caller)
        window = self._window(digest)
        slot = int(self._clock() / self._slot_seconds)
        if slot != window.newest:
            window.move_to(slot)
        if window.total >= (limit or self.limit):
            raise RateLimited("Too many requests. Please try again later.", retry_after=RETRY_AFTER_SECONDS)
        window.slots[slot % SLOTS] += 1
        window.total += 1
        unsent = self._unsent.get(digest, 0) + 1
        self._unsent[digest] = unsent
        if limit or unsent >= self._urgent:
            self._wake.set()

    async def admit(self, principal: str, tool: str) -> int:
        """As `take`, for the MCP face: 0 = go on, otherwise the seconds to wait. Tools share one budget.

        `principal` is `<who>.<client>`; the client does not count, because anybody may register another one.
        """
        del tool
        try:
            self.take(principal.partition(".")[0])
        except RateLimited as refused:
            return refused.problem.retry_after
        return 0

    async def on_report(self, report: RateReport) -> None:
        """What another replica admitted since its last report."""
        if report.replica == self._replica:
            return
        slot = int(self._clock() / self._slot_seconds)
        for digest, count in report.counts.items():
            if count > 0 and len(digest) == DIGEST_BYTES:
                self._window(digest).add(slot, min(count, self.limit))

    async def report_forever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPORT_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            await self.report()

    async def report(self) -> None:
        if self._unsent:
            counts, self._unsent = self._unsent, {}
            await self._tell(GW_RATE, RateReport(replica=self._replica, counts=counts))

    def start(self) -> None:
        self._task = asyncio.create_task(self.report_forever(), name="rate-reports")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.report()

    def _digest(self, caller: str) -> bytes:
        digest = self._digests.get(caller)
        if digest is None:
            digest = hmac.digest(self._key, caller.encode(), hashlib.sha256)[:DIGEST_BYTES]
            self._digests[caller] = digest
            if len(self._digests) > MAX_CALLERS:
                self._digests.popitem(last=False)
        return digest

    def _window(self, digest: bytes) -> _Window:
        window = self._windows.get(digest)
        if window is None:
            window = self._windows[digest] = _Window()
            if len(self._windows) > MAX_CALLERS:
                self._windows.popitem(last=False)
        else:
            self._windows.move_to_end(digest)
        return window


def address_key(address: str) -> str:
    """The budget of somebody who has not signed in. A home user owns a whole IPv6 /64 and could walk through it."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "address:unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return f"address:{parsed.ipv4_mapped}"
        return f"address:{ipaddress.ip_network((parsed, 64), strict=False).network_address}/64"
    return f"address:{parsed}"
