"""Budgets that hold when clocks disagree: how much of a call's time is left, measured on arrival (NB-4).

A message carries the sender's wall clock and the milliseconds that were left when it was sent. What the receiver
needs is how long the message was on its way. The smallest difference between the two clocks seen lately is the
skew plus the fastest transit; anything above it is time spent waiting, for example inside a frozen broker.
"""

from __future__ import annotations

import time
from collections.abc import Callable

WINDOW_SECONDS = 30.0
# Without history a difference up to this is taken for waiting, above it for skew.
PLAUSIBLE_WAIT_SECONDS = 10.0
MAX_SENDERS = 1024


class Budgets:
    """Remaining time of arriving messages, per sender."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        # sender -> [window start, smallest difference in this window, smallest in the window before]
        self._seen: dict[bytes, list[float]] = {}

    def remaining(self, sender: bytes, sent_at: float, remaining_ms: int) -> float:
        """Seconds left now, for a message of `sender` that had `remaining_ms` at its clock time `sent_at`."""
        difference = self._wall() - sent_at
        now = self._monotonic()
        seen = self._seen.get(sender)
        if seen is None:
            if len(self._seen) >= MAX_SENDERS:
                self._seen.clear()
            self._seen[sender] = [now, difference, difference]
            waited = difference if 0.0 < difference <= PLAUSIBLE_WAIT_SECONDS else 0.0
            return remaining_ms / 1000 - waited
        if now - seen[0] > WINDOW_SECONDS:
            seen[0], seen[2], seen[1] = now, seen[1], difference
        elif difference < seen[1]:
            seen[1] = difference
        return remaining_ms / 1000 - (difference - min(seen[1], seen[2]))
