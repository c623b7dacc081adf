"""What detection has to remember between events; saved with the cursor, so that a restart goes on as if nothing was."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Struct, field

_KEEP_HOURS = timedelta(hours=3)
_KEEP_RAISED = timedelta(days=32)
_KEEP_ACTORS = timedelta(days=800)


class BadState(Exception):
    """The saved state is not one of ours."""


class Hour(Struct):
    """One actor in one hour of the clock: events per log, and the log of each distinct patient."""

    start: datetime
    actor: str
    events: dict[int, int] = field(default_factory=dict[int, int])
    patients: dict[str, int] = field(default_factory=dict[str, int])


class State(Struct):
    """Everything is forgotten by the time the stream stored events at, so that a replay forgets the same."""

    now: datetime | None = None
    pruned: datetime | None = None
    hours: dict[str, Hour] = field(default_factory=dict[str, Hour])
    bursts: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    last_seen: dict[str, datetime] = field(default_factory=dict[str, datetime])
    raised: dict[str, datetime] = field(default_factory=dict[str, datetime])
    directory: str = ""  # digest of the feed that was used last
    rules: str = ""  # and of the rules

    def move(self, stored: datetime) -> None:
        """Time goes on; once in an hour what is over is forgotten."""
        self.now = max(self.now or stored, stored)
        if self.pruned is None:
            self.pruned = self.now
        elif self.now - self.pruned > timedelta(hours=1):
            self.pruned = self.now
            self._prune(self.now)

    def hour(self, actor: str, at: datetime) -> Hour:
        start = int(at.timestamp() // 3600) * 3600
        key = f"{actor}\x1f{start}"
        found = self.hours.get(key)
        if found is None:
            found = self.hours[key] = Hour(datetime.fromtimestamp(start, UTC), actor)
        return found

    def _prune(self, now: datetime) -> None:
        self.hours = {k: v for k, v in self.hours.items() if v.start > now - _KEEP_HOURS}
        self.raised = {k: v for k, v in self.raised.items() if v > now - _KEEP_RAISED}
        self.last_seen = {k: v for k, v in self.last_seen.items() if v > now - _KEEP_ACTORS}
        limit = (now - _KEEP_HOURS).timestamp()
        self.bursts = {k: v for k, v in self.bursts.items() if v and v[-1] > limit}


def encode(state: State) -> bytes:
    return msgspec.msgpack.encode(state)


def decode(raw: bytes) -> State:
    """Raises BadState."""
    if not raw:
        return State()
    try:
        return msgspec.msgpack.decode(raw, type=State)
    except msgspec.MsgspecError:
        raise BadState("the saved state of detection cannot be read") from None
