"""Time limits for many short pieces of work at once: one timer looks after all of them."""

from __future__ import annotations

import asyncio
from types import TracebackType

# A limit may be noticed this much late. A timer of its own for every piece of work costs four times as much.
SWEEP_SECONDS = 0.05


class Deadlines:
    """`with deadlines.within(seconds):` raises TimeoutError, as asyncio.timeout does, at most SWEEP_SECONDS late."""

    def __init__(self) -> None:
        self._running: set[Limit] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """True while no timer is running."""
        return self._timer is None

    def within(self, seconds: float) -> Limit:
        """A limit counted from now; with nothing left the work is stopped at its first wait."""
        return Limit(self, seconds)

    def enter(self, limit: Limit) -> None:
        self._running.add(limit)
        if limit.seconds <= 0:
            asyncio.get_running_loop().call_soon(self._end, limit)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)

    def leave(self, limit: Limit) -> None:
        self._running.discard(limit)

    def _end(self, limit: Limit) -> None:
        if limit in self._running:
            self._running.discard(limit)
            limit.expire()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for limit in [limit for limit in self._running if limit.at <= now]:
            self._end(limit)
        # Nothing to look after: the next one to enter starts the timer again.
        self._timer = loop.call_later(SWEEP_SECONDS, self._sweep) if self._running else None


class Limit:
    """One piece of work of the current task."""

    __slots__ = ("_cancelling", "_deadlines", "_expired", "_task", "at", "seconds")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self._deadlines = deadlines
        self._expired = False
        self._cancelling = 0
        self._task: asyncio.Task[object] | None = None
        self.seconds = seconds
        self.at = asyncio.get_running_loop().time() + seconds

    def expire(self) -> None:
        assert self._task is not None, "only entered limits are looked after"
        self._expired = True
        self._task.cancel()

    def __enter__(self) -> None:
        self._task = task = asyncio.current_task()
        assert task is not None, "limits hold for tasks"
        self._cancelling = task.cancelling()
        self._deadlines.enter(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.leave(self)
        if not self._expired or self._task is None:
            return
        # Somebody else may have cancelled the task as well: then it stays cancelled.
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
