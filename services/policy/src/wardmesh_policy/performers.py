"""Which replica of a performer gets the next call: the less busy of two (NB-10), or the one that counts (B-16)."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable

import msgspec
from msgspec import Struct

from wardmesh_common.questions import Load

FRESH_SECONDS = 1.0
# Now and then the queue group decides, so that an instance that was slow gets the chance to show that it is no longer.
EXPLORE_SHARE = 1 / 128

_loads = msgspec.msgpack.Decoder(Load)


class _Seen(Struct):
    load: Load
    at: float
    sent: int = 0  # calls given to it since it reported

    @property
    def cost(self) -> float:
        return (self.load.in_flight + self.sent + 1) * max(self.load.latency_ms, 0.5)


class PerformerChoice:
    """Keeps the last report of each replica for a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, chance: random.Random | None = None) -> None:
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._seen: dict[str, _Seen] = {}

    def on_load(self, subject: str, data: bytes) -> None:
        """Runs in the read loop. An instance speaks for itself only: its name becomes a subject."""
        try:
            load = _loads.decode(data)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return
        if load.instance != subject.rpartition(".")[2]:
            return
        self._seen[load.instance] = _Seen(load, self._clock())

    def choose(self, counted: str = "") -> str:
        """An instance, or "" for the queue group: with fewer than two fresh reports there is nothing to choose.

        `counted` is a platform with a published rate: all its calls go to one replica, the same for every chooser,
        so that what is counted there is what the platform sees. When the replicas change, at most a few of these
        platforms move (rendezvous hashing).
        """
        since = self._clock() - FRESH_SECONDS
        for name in [name for name, seen in self._seen.items() if seen.at < since]:
            del self._seen[name]
        if len(self._seen) < 2:
            return ""
        if counted:
            return max(self._seen, key=lambda name: hashlib.sha256(f"{counted}/{name}".encode()).digest())
        if self._chance.random() < EXPLORE_SHARE:
            return ""
        first, second = self._chance.sample(list(self._seen.values()), 2)
        chosen = first if first.cost <= second.cost else second
        chosen.sent += 1
        return chosen.load.instance
