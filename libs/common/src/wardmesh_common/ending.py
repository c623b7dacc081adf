"""Ending background tasks for certain: a cancellation may get lost, and then it is repeated."""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_SECONDS = 1.0


async def ended(*tasks: asyncio.Task[Any], again_seconds: float = AGAIN_SECONDS) -> None:
    """Cancels the tasks and returns when they are over, whatever they raised.

    Until Python 3.12 `asyncio.wait_for`, which the NATS client uses for every request, gives out the answer and forgets
    the cancellation when both come in the same turn of the loop. A role that asks in a loop then goes on for ever, and
    who cancelled it once waits for ever.
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=again_seconds)
    await asyncio.gather(*tasks, return_exceptions=True)
