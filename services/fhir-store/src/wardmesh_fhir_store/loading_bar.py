"""What a load shows: a bar that moves on a terminal, and one plain line per file."""

from __future__ import annotations

import sys
import time
from typing import TextIO

WIDTH = 24
EVERY_SECONDS = 0.1


class Bar:
    """For a number of files, one after the other, without their names: they may tell who a patient is."""

    def __init__(self, files: int, out: TextIO = sys.stderr) -> None:
        self._files = files
        self._out = out
        self._moving = out.isatty()
        self._file = 0
        self._size = 1
        self._begun = self._shown = time.monotonic()
        self._resources = 0

    def begin(self) -> None:
        self._file += 1
        self._size = 1
        self._begun = time.monotonic()
        self._resources = 0

    def measured(self, size: int) -> None:
        self._size = max(size, 1)

    def advance(self, position: int, resources: int) -> None:
        self._resources += resources
        now = time.monotonic()
        if not self._moving or (now - self._shown < EVERY_SECONDS and position < self._size):
            return
        self._shown = now
        share = min(position / self._size, 1.0)
        filled = "█" * round(WIDTH * share)
        rate = self._resources / max(now - self._begun, 0.001)
        text = f"{self._file}/{self._files} {filled:·<{WIDTH}} {share:4.0%} {self._resources} resources, {rate:.0f}/s"
        self._out.write(f"\r\x1b[K  {text}")
        self._out.flush()

    def done(self, note: str) -> None:
        seconds = time.monotonic() - self._begun
        self.say(f"file {self._file} of {self._files}: {note}, {seconds:.1f} s")

    def failed(self, why: str) -> None:
        self.say(f"file {self._file} of {self._files} {why}")

    def say(self, text: str) -> None:
        """A line that stays; on a terminal it takes the place of the bar."""
        self._out.write(f"\r\x1b[K  {text}\n" if self._moving else f"{text}\n")
        self._out.flush()
