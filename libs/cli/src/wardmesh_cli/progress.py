"""What the terminal shows: one line per step with its time; colours only on a terminal."""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

_CODES = {"green": "32", "red": "31", "yellow": "33", "blue": "36", "bold": "1", "quiet": "2"}


class Terminal:
    """Writes lines. `paint` returns the text unchanged when the output is no terminal."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._colours = out.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._begun = time.monotonic()

    def paint(self, text: str, style: str) -> str:
        return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if self._colours else text

    def line(self, text: str = "") -> None:
        self._out.write(text + "\n")
        self._out.flush()

    def step(self, name: str, note: str, seconds: float) -> None:
        mark = self.paint("✓", "green")
        self.line(f"  {mark} {name:<20} {self.paint(f'{seconds:6.2f} s', 'quiet')}  {note}")

    def warn(self, text: str) -> None:
        self.line(f"  {self.paint('!', 'yellow')} {text}")

    def fault(self, text: str, log: list[str] | None = None) -> None:
        self.line(f"  {self.paint('✗', 'red')} {self.paint(text, 'bold')}")
        for line in log or []:
            self.line(f"      {self.paint(line[:400], 'quiet')}")

    def title(self, text: str) -> None:
        self.line(self.paint(text, "bold"))

    def elapsed(self) -> float:
        return time.monotonic() - self._begun
