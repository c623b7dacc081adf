"""What a load says about what it refused: the first ones on the screen, all of them in a file when one is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from wardmesh_fhir_store.faults import Issue

MOST_SHOWN = 20


class _Outcome(Struct, frozen=True):
    issue: tuple[Issue, ...]


class Refusals:
    """Of one command. Reasons are the store's own words and never quote what was sent.

    A file is named here, and only here: its name may tell who a patient is, but whoever loads has to find the line.
    """

    def __init__(self, say: Callable[[str], None], file: BinaryIO | None) -> None:
        self._say = say
        self._file = file
        self._count = 0

    def add(self, path: Path, line: int, outcome: bytes) -> None:
        """`line` counts in NDJSON only: a JSON file is one resource, however many lines it has."""
        self._count += 1
        if self._file is not None:
            self._file.write(outcome + b"\n")
        if self._count <= MOST_SHOWN:
            place = f"{path} line {line}" if path.suffix != ".json" else str(path)
            self._say(f"{place}: {reason(outcome)}")

    def end(self) -> None:
        if self._count > MOST_SHOWN:
            where = "" if self._file is not None else "; --errors FILE writes all of them"
            self._say(f"and {self._count - MOST_SHOWN} more{where}")


def reason(outcome: bytes) -> str:
    """The first issue with its place in the resource, and how many more there are."""
    first, *more = msgspec.json.decode(outcome, type=_Outcome).issue
    place = " ".join(first.expression or ())
    told = f"{place}: {first.diagnostics}" if place else first.diagnostics
    return f"{told} (and {len(more)} more)" if more else told
