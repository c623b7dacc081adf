"""A body that is still being received while it is sent on: nobody holds more of it than a few pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

UNKNOWN_SIZE = -1


class Streamed:
    """Whoever takes it closes it, read or unread; closing it twice does no harm."""

    def __init__(self, parts: AsyncIterator[bytes], size: int, close: Callable[[], Awaitable[None]]) -> None:
        self.parts = parts
        self.size = size  # UNKNOWN_SIZE when the end will tell
        self._close: Callable[[], Awaitable[None]] | None = close
        self._afterwards: list[Callable[[], None]] = []

    def afterwards(self, callback: Callable[[], None]) -> None:
        """Called once, when the body is closed."""
        self._afterwards.append(callback)

    async def close(self) -> None:
        close, self._close = self._close, None
        if close is None:
            return
        try:
            await close()
        finally:
            for callback in self._afterwards:
                callback()


def size_of(body: bytes, stream: Streamed | None) -> int:
    """Of an answer, which is one or the other; UNKNOWN_SIZE while only the end of the stream will tell."""
    return len(body) if stream is None else stream.size
