"""One waiter per caller and platform over all replicas: who waits here is told to the others, as digests."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from msgspec import Struct

from wardmesh_common.contracts import GW_WAIT
from wardmesh_common.questions import WaitReport

# A replica that died in mid-wait is forgotten after this; the living repeat themselves more often.
FORGET_SECONDS = 15.0
REPEAT_SECONDS = 5.0

Tell = Callable[[str, Struct], Awaitable[None]]


class Waiters:
    """Two requests in the very same moment on two replicas both wait: that harms nobody."""

    def __init__(self, tell: Tell, *, replica: str, key: bytes, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell, self._replica, self._key, self._clock = tell, replica, key, clock
        self._mine: set[bytes] = set()
        self._theirs: dict[bytes, float] = {}

    @asynccontextmanager
    async def only(self, who: str) -> AsyncGenerator[bool]:
        """True for the first waiter of that name; while the block runs every other one gets False."""
        digest = hmac.digest(self._key, who.encode(), hashlib.sha256)[:16]
        if digest in self._mine or self._theirs.get(digest, 0.0) > self._clock():
            yield False
            return
        self._mine.add(digest)
        repeating = asyncio.create_task(self._repeat(digest), name="waiter")
        try:
            yield True
        finally:
            repeating.cancel()
            self._mine.discard(digest)
            await self._report(digest, waiting=False)

    async def on_report(self, report: WaitReport) -> None:
        if report.replica == self._replica:
            return
        if report.waiting:
            self._theirs[report.digest] = self._clock() + FORGET_SECONDS
        else:
            self._theirs.pop(report.digest, None)

    async def _repeat(self, digest: bytes) -> None:
        while True:
            await self._report(digest, waiting=True)
            now = self._clock()
            self._theirs = {other: until for other, until in self._theirs.items() if until > now}
            await asyncio.sleep(REPEAT_SECONDS)

    async def _report(self, digest: bytes, *, waiting: bool) -> None:
        await self._tell(GW_WAIT, WaitReport(replica=self._replica, digest=digest, waiting=waiting))
