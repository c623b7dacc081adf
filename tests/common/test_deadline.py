"""Time limits that share one timer: as strict as asyncio.timeout, a moment later."""

from __future__ import annotations

import asyncio
import time

import pytest

from wardmesh_common.deadline import SWEEP_SECONDS, Deadlines

pytestmark = pytest.mark.anyio


async def test_work_that_takes_too_long_is_stopped_at_most_one_sweep_late() -> None:
    deadlines = Deadlines()
    started = time.monotonic()
    with pytest.raises(TimeoutError), deadlines.within(0.1):
        await asyncio.sleep(30)
    assert 0.1 <= time.monotonic() - started < 0.1 + SWEEP_SECONDS + 5.0
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_work_in_time_is_left_alone_and_the_timer_ends_with_it() -> None:
    deadlines = Deadlines()
    with deadlines.within(10):
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        while not deadlines.idle:
            await asyncio.sleep(0.01)
    with pytest.raises(TimeoutError), deadlines.within(SWEEP_SECONDS):
        await asyncio.sleep(30)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_without_time_left_work_ends_at_its_first_wait(seconds: float) -> None:
    deadlines = Deadlines()
    reached: list[str] = []
    with pytest.raises(TimeoutError), deadlines.within(seconds):
        reached.append("start")
        await asyncio.sleep(30)
    assert reached == ["start"]
    with deadlines.within(seconds):
        reached.append("no wait")
    await asyncio.sleep(0)  # a limit that was left does not strike afterwards
    assert reached == ["start", "no wait"]


async def test_a_cancelled_task_stays_cancelled_inside_and_after_the_limit() -> None:
    deadlines = Deadlines()

    async def work() -> None:
        with deadlines.within(30):
            await asyncio.sleep(30)

    async def both() -> None:
        with deadlines.within(0.01):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()  # somebody else's wish arrives in the same moment
                raise

    for coroutine in (work(), both()):
        task = asyncio.create_task(coroutine)
        await asyncio.sleep(0)
        if coroutine.cr_code is work.__code__:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 60)


async def test_many_limits_in_one_another_each_stop_their_own_work() -> None:
    deadlines = Deadlines()

    async def nested(outer: float, inner: float) -> str:
        try:
            with deadlines.within(outer):
                try:
                    with deadlines.within(inner):
                        await asyncio.sleep(30)
                except TimeoutError:
                    return "inner"
        except TimeoutError:
            return "outer"
        return "none"

    found = await asyncio.gather(*(nested(25.0, 0.05) for _ in range(20)), *(nested(0.05, 25.0) for _ in range(20)))
    assert found == ["inner"] * 20 + ["outer"] * 20
