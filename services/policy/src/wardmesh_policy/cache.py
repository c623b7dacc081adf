"""Verdicts of the last two seconds, for identical questions only; never for writes."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from wardmesh_common.questions import PlatformFacts
from wardmesh_common.vocabulary import Grant
from wardmesh_policy.checks import Caller, Check, everywhere_by, granted_by
from wardmesh_policy.flights import Flights
from wardmesh_policy.verdicts import Verdict

SECONDS = 2.0
CAPACITY = 20_000
# Cerbos loads edited files after two to four seconds: until then its answers are not worth keeping.
SETTLE_SECONDS = 6.0


class VerdictCache:
    """Bounded; the key holds the policy version, so an edited policy is never answered from before."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: OrderedDict[Hashable, tuple[float, Verdict]] = OrderedDict()
        self._settled_at = float("-inf")
        self.flights = Flights()

    @staticmethod
    def key(version: str, caller: Caller, check: Check, platform: PlatformFacts, grant: Grant | None) -> Hashable:
        """Everything that Cerbos is told, and which rules it had."""
        where = (platform.id, platform.open, platform.writes, granted_by(platform, grant))
        where += (everywhere_by(platform, grant),)
        question = (check.kind, check.action, check.id, check.params, check.arguments, check.subject, check.came_along)
        return (version, caller, where, question, check.target)

    def get(self, key: Hashable) -> Verdict | None:
        held = self._held.get(key)
        if held is None:
            return None
        if held[0] < self._clock():
            del self._held[key]
            return None
        return held[1]

    def put(self, key: Hashable, verdict: Verdict) -> None:
        if self._clock() < self._settled_at:
            return
        self._held[key] = (self._clock() + SECONDS, verdict)
        if len(self._held) > CAPACITY:
            self._held.popitem(last=False)

    def policies_changed(self) -> None:
        self._held.clear()
        self.flights.forget()
        self._settled_at = self._clock() + SETTLE_SECONDS
