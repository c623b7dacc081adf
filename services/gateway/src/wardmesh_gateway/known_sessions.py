"""Cookies that auth has found to be sessions: those have a rate budget of their own, made-up ones have none (FG-15)."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable

REMEMBER_SECONDS = 120.0
MAX_KNOWN = 20_000


class KnownSessions:
    """By digest, as auth names sessions; each replica learns for itself from the calls that came back (X-10)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, float] = OrderedDict()

    def budget(self, cookie: str) -> str:
        """Whose budget a request with this cookie uses; "" = not known to be anybody's."""
        handle = _handle(cookie)
        return f"session:{handle}" if self._known.get(handle, 0.0) > self._clock() else ""

    def remember(self, cookie: str) -> None:
        """A call with this cookie has passed auth."""
        handle = _handle(cookie)
        self._known[handle] = self._clock() + REMEMBER_SECONDS
        self._known.move_to_end(handle)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def forget(self, handle: str) -> None:
        """This session is over."""
        self._known.pop(handle, None)


def _handle(cookie: str) -> str:
    return hashlib.sha256(cookie.encode()).hexdigest()
