"""The signed list of all logs, one per day: whoever has one misses a log that is removed or hidden later."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from datetime import date

from msgspec import Struct

from wardmesh_audit.note import BadNote, Checkpoint, Verifier, open_note, parse_checkpoint

_FIRST = "first"
_MOST_LOGS = 10_000


class LogList(Struct, frozen=True, kw_only=True):
    """Every log with the newest checkpoint it had; `previous` is the hash of the list before: they are a chain."""

    origin: str
    day: date
    previous: str
    logs: tuple[Checkpoint, ...]

    def text(self) -> str:
        lines = [self.origin, self.day.isoformat(), f"previous {self.previous}"]
        lines += [f"{log.origin} {log.size} {b64encode(log.root).decode()}" for log in self.logs]
        return "\n".join(lines) + "\n"

    def digest(self) -> str:
        """By which the next list names this one."""
        return b64encode(hashlib.sha256(self.text().encode()).digest()).decode()


def origin_of(deployment: str) -> str:
    """First line of every list, and the name of the key that signs it."""
    return f"{deployment}/audit/logs"


def following(before: LogList | None) -> str:
    return _FIRST if before is None else before.digest()


def log_number(origin: str, log: Checkpoint) -> int:
    """The log of a line, by the origin of its list. Raises BadNote."""
    stem = origin.removesuffix("logs")
    number = log.origin.removeprefix(stem)
    if not number.isascii() or not number.isdigit() or f"{stem}{int(number)}" != log.origin:
        raise BadNote("a line of the list names no log of this deployment")
    return int(number)


def list_keys(deployment: str, verifiers: Iterable[Verifier]) -> list[Verifier]:
    """The keys of the logs sign the list as well, under its own name."""
    return list({Verifier(origin_of(deployment), key.public): None for key in verifiers})


def open_list(note: str, verifiers: Sequence[Verifier]) -> LogList:
    """Raises UnknownKey, BadSignature or BadNote."""
    lines = open_note(note, verifiers).split("\n")
    if not 4 <= len(lines) <= _MOST_LOGS or lines[-1] or not lines[2].startswith("previous "):
        raise BadNote("not a list of logs")
    if lines[0] not in {verifier.name for verifier in verifiers}:
        raise BadNote("the list of another deployment")
    try:
        day = date.fromisoformat(lines[1])
    except ValueError:
        raise BadNote("the list names no day") from None
    logs = tuple(parse_checkpoint(line.replace(" ", "\n") + "\n") for line in lines[3:-1])
    made = LogList(origin=lines[0], day=day, previous=lines[2].removeprefix("previous "), logs=logs)
    numbers = [log_number(made.origin, log) for log in logs]
    if made.text() != "\n".join(lines) or numbers != sorted(set(numbers)):
        raise BadNote("not a list of logs")
    return made
