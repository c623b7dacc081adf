"""Questions that are under way: who wants to know the same waits for that answer instead of asking again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence

from wardmesh_common.errors import Unavailable
from wardmesh_policy.verdicts import Verdict

# Asks about some of the keys, within so many seconds; one verdict for each, in their order.
Ask = Callable[[Sequence[Hashable], float], Awaitable[list[Verdict]]]


class Flights:
    """When a verdict grows too old under load, dozens of calls want it anew in the same moment: one of them asks."""

    def __init__(self) -> None:
        self._awaited: dict[Hashable, asyncio.Future[Verdict]] = {}

    def forget(self) -> None:
        """The rules are others: what is under way is nobody's but theirs who asked."""
        self._awaited = {}

    async def verdicts(
        self, keys: Sequence[Hashable], ask: Ask, timeout_seconds: float, alone: frozenset[Hashable]
    ) -> dict[Hashable, Verdict]:
        """By key; those in `alone` are asked about by each for himself. Raises Unavailable, as `ask` does."""
        until = asyncio.get_running_loop().time() + timeout_seconds
        joined = {key: self._awaited[key] for key in keys if key in self._awaited and key not in alone}
        ours = [key for key in keys if key not in joined]
        found = await self._lead(ours, ask, timeout_seconds, alone) if ours else {}
        if joined:
            await asyncio.wait(joined.values(), timeout=max(0.0, until - asyncio.get_running_loop().time()))
        for key, future in joined.items():
            if not future.done():
                raise Unavailable("The policy decision point is not reachable.")
            if future.cancelled():  # who asked had less time, or hung up
                left = until - asyncio.get_running_loop().time()
                (found[key],) = await ask([key], left)
            else:
                found[key] = future.result()
        return found

    async def _lead(
        self, keys: list[Hashable], ask: Ask, timeout_seconds: float, alone: frozenset[Hashable]
    ) -> dict[Hashable, Verdict]:
        loop = asyncio.get_running_loop()
        awaited = self._awaited
        flights = {key: loop.create_future() for key in keys if key not in alone}
        awaited.update(flights)
        try:
            found = dict(zip(keys, await ask(keys, timeout_seconds), strict=True))
            for key, future in flights.items():
                future.set_result(found[key])
        finally:
            for key, future in flights.items():
                future.cancel()  # without effect on what has its result
                if awaited.get(key) is future:
                    del awaited[key]
        return found
