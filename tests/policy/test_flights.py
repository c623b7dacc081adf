"""Who asks what somebody is asking already waits for that answer."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence

import pytest

from wardmesh_common.errors import Unavailable
from wardmesh_policy.cache import VerdictCache
from wardmesh_policy.flights import Flights
from wardmesh_policy.verdicts import Verdict

PATIENCE = 30.0
NOBODY: frozenset[Hashable] = frozenset()


class Slow:
    """A decision point that answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Hashable, ...]] = []
        self.may_answer = asyncio.Event()
        self.failing = False

    async def ask(self, keys: Sequence[Hashable], _seconds: float) -> list[Verdict]:
        self.asked.append(tuple(keys))
        await self.may_answer.wait()
        if self.failing:
            raise Unavailable("away")
        return [Verdict(allowed=True, rule=str(key)) for key in keys]


async def _begun(*asked: asyncio.Task[dict[Hashable, Verdict]]) -> None:
    """Every task has got as far as it can without an answer."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(task.done() for task in asked)


def test_many_who_want_the_same_at_once_ask_once() -> None:
    async def run() -> None:
        flights, point = Flights(), Slow()
        tasks = [
            asyncio.create_task(flights.verdicts(["a", f"own-{n}"], point.ask, PATIENCE, NOBODY)) for n in range(20)
        ]
        await _begun(*tasks)
        point.may_answer.set()
        found = await asyncio.gather(*tasks)
        assert [each["a"].rule for each in found] == ["a"] * 20
        assert [each[f"own-{n}"].rule for n, each in enumerate(found)] == [f"own-{n}" for n in range(20)]
        assert [key for keys in point.asked for key in keys if key == "a"] == ["a"]
        await flights.verdicts(["a"], point.ask, PATIENCE, NOBODY)
        assert point.asked[-1] == ("a",), "what has been answered is not under way any more"

    asyncio.run(run())


def test_each_write_is_asked_about_for_itself() -> None:
    async def run() -> None:
        flights, point = Flights(), Slow()
        alone = frozenset[Hashable]({"w"})
        tasks = [asyncio.create_task(flights.verdicts(["w"], point.ask, PATIENCE, alone)) for _ in range(3)]
        await _begun(*tasks)
        point.may_answer.set()
        await asyncio.gather(*tasks)
        assert point.asked == [("w",)] * 3

    asyncio.run(run())


def test_a_caller_who_hangs_up_takes_nobody_elses_answer_away() -> None:
    async def run() -> None:
        flights, point = Flights(), Slow()
        first = asyncio.create_task(flights.verdicts(["a"], point.ask, PATIENCE, NOBODY))
        second = asyncio.create_task(flights.verdicts(["a"], point.ask, PATIENCE, NOBODY))
        await _begun(first, second)
        first.cancel()
        point.may_answer.set()
        assert (await second)["a"].allowed
        assert point.asked == [("a",), ("a",)]
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(run())


def test_a_waiting_caller_may_hang_up_as_well() -> None:
    async def run() -> None:
        flights, point = Flights(), Slow()
        first = asyncio.create_task(flights.verdicts(["a"], point.ask, PATIENCE, NOBODY))
        second = asyncio.create_task(flights.verdicts(["a"], point.ask, PATIENCE, NOBODY))
        await _begun(first, second)
        second.cancel()
        await asyncio.wait([second])
        point.may_answer.set()
        assert (await first)["a"].allowed

    asyncio.run(run())


def test_a_failure_is_everybodys_own_and_so_is_a_lack_of_time() -> None:
    async def run() -> None:
        flights, point = Flights(), Slow()
        tasks = [asyncio.create_task(flights.verdicts(["a"], point.ask, PATIENCE, NOBODY)) for _ in range(2)]
        await _begun(*tasks)
        with pytest.raises(Unavailable):  # no time left to wait for what the first has asked
            await flights.verdicts(["a"], point.ask, 0.0, NOBODY)
        point.failing = True
        point.may_answer.set()
        failed = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in failed] == [Unavailable, Unavailable]

    asyncio.run(run())


def test_an_answer_by_the_old_rules_is_not_for_those_who_ask_after_a_change() -> None:
    async def run() -> None:
        cache, point = VerdictCache(), Slow()
        before = asyncio.create_task(cache.flights.verdicts(["a"], point.ask, PATIENCE, NOBODY))
        await _begun(before)
        cache.policies_changed()
        after = asyncio.create_task(cache.flights.verdicts(["a"], point.ask, PATIENCE, NOBODY))
        await _begun(before, after)
        point.may_answer.set()
        await asyncio.gather(before, after)
        assert point.asked == [("a",), ("a",)]
        await cache.flights.verdicts(["a"], point.ask, PATIENCE, NOBODY)
        assert len(point.asked) == 3

    asyncio.run(run())
