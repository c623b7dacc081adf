"""Background tasks end although the wait inside them swallows the first cancellation."""

from __future__ import annotations

import asyncio

from wardmesh_common.ending import ended


class Asking:
    """A role that asks in a loop, as those of the ledger ask JetStream."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.rounds = 0

    async def run(self) -> None:
        while True:
            await asyncio.wait_for(self.answer, 60)
            self.rounds += 1
            self.answer = asyncio.get_running_loop().create_future()


def test_a_task_whose_answer_comes_with_the_cancellation_ends_all_the_same() -> None:
    async def run() -> int:
        role = Asking()
        task = asyncio.create_task(role.run())
        await asyncio.sleep(0)
        ending = asyncio.create_task(ended(task, again_seconds=0.05))
        role.answer.set_result(None)  # in the same turn of the loop
        await asyncio.wait_for(ending, 60)
        assert task.done()
        return role.rounds

    assert asyncio.run(run()) in (0, 1)


def test_whatever_a_task_raised_ending_it_raises_nothing() -> None:
    async def run() -> None:
        async def failing() -> None:
            raise OSError

        failed, over = asyncio.create_task(failing()), asyncio.create_task(asyncio.sleep(0))
        await asyncio.sleep(0.01)
        await ended(failed, over, asyncio.create_task(asyncio.sleep(60)))
        await ended()

    asyncio.run(run())
