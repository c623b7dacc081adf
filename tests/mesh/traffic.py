"""Traffic against a running mesh: many callers at once, every answer kept with its time and request id."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Seen:
    """What the callers saw. Status 0 is a connection that broke before an answer."""

    answers: list[tuple[int, float, str]] = field(default_factory=list)  # status, seconds, request id
    words: Counter[str] = field(default_factory=Counter[str])  # what refusals said

    @property
    def statuses(self) -> Counter[int]:
        return Counter(status for status, _, _ in self.answers)

    @property
    def slowest(self) -> float:
        return max(seconds for _, seconds, _ in self.answers)

    @property
    def good_ids(self) -> set[str]:
        return {name for status, _, name in self.answers if status == 200}


async def ask(base: str, path: str, token: str, *, timeout_seconds: float = 45.0) -> tuple[int, dict[str, str], bytes]:
    """One GET on a connection of its own: no pooling hides a broken server. Raises OSError or TimeoutError."""
    address = urlsplit(base)
    async with asyncio.timeout(timeout_seconds):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {token}\r\n"
                "Accept: application/fhir+json\r\nConnection: close\r\n\r\n".encode()
            )
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = head.split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
            body = await reader.read()
            return int(lines[0].split()[1]), headers, body
        finally:
            writer.close()


# Longer than a replica's circuit breaker stays open: one that an earlier fault opened has been tried again by then.
CALM_SECONDS = 11.0


async def steady(
    base: str, path: str, token: str, *, calls: int = 30, calm_seconds: float = 0.0, seconds: float = 150.0
) -> None:
    """Wait until so many calls in a row, and all for so long, were good: nothing of an earlier fault is left."""
    row = 0
    since = time.monotonic()
    async with asyncio.timeout(seconds):
        while row < calls or time.monotonic() - since < calm_seconds:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError, IndexError):
                status, _, _ = await ask(base, path, token)
                row = row + 1 if status == 200 else 0
            if not row:
                since = time.monotonic()
                await asyncio.sleep(0.1)


class Traffic:
    """Callers that read as fast as they are answered until told to stop."""

    def __init__(self, base: str, path: str, token: str, callers: int = 6, pause_seconds: float = 0.0) -> None:
        self._base, self._path, self._token = base, path, token
        self.callers = callers
        self._pause = pause_seconds
        self._going = True
        self._tasks: list[asyncio.Task[None]] = []
        self.seen = Seen()

    async def __aenter__(self) -> Traffic:
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self.callers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._going = False
        async with asyncio.timeout(60):
            await asyncio.gather(*self._tasks)

    async def _call(self) -> None:
        while self._going:
            started = time.monotonic()
            try:
                status, headers, body = await ask(self._base, self._path, self._token)
                if status != 200:
                    self.seen.words[f"{status} {body.decode(errors='replace')[:200]}"] += 1
            except (OSError, asyncio.IncompleteReadError, ValueError, IndexError):
                status, headers = 0, {}
                await asyncio.sleep(0.05)  # a refused connection is no load
            name = headers.get("x-request-id", "")
            self.seen.answers.append((status, time.monotonic() - started, name))
            if self._pause:
                await asyncio.sleep(self._pause)

    async def good(self, more: int, seconds: float = 120.0) -> None:
        """Wait until `more` further good answers have come."""
        target = self.seen.statuses[200] + more
        async with asyncio.timeout(seconds):
            while self.seen.statuses[200] < target:
                await asyncio.sleep(0.05)
