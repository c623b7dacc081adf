"""Whether the kernel says that this machine's clock is synchronised; goes into every audit event."""

from __future__ import annotations

import ctypes
import time

_TIMEX_BYTES = 208
_TIME_ERROR = 5
_CHECK_SECONDS = 60.0


class _Clock:
    """The last answer of adjtimex(2), asked at most once a minute."""

    def __init__(self) -> None:
        self._checked = -_CHECK_SECONDS
        self._synced = False

    def synced(self) -> bool:
        now = time.monotonic()
        if now - self._checked >= _CHECK_SECONDS:
            self._checked = now
            self._synced = _ask_kernel()
        return self._synced


def _ask_kernel() -> bool:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        state: int = libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return False  # not Linux: unknown counts as not synchronised
    return 0 <= state < _TIME_ERROR


clock_synced = _Clock().synced
