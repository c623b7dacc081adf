"""What auth does beside answering: reading what was revoked, sweeping what is over, reading keys again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from wardmesh_auth.revocations import Revocations
from wardmesh_common.errors import Unavailable, WardmeshError

log = logging.getLogger("wardmesh.auth")


async def until_read(revocations: Revocations) -> None:
    """Without the list of what was revoked nobody is let in."""
    while True:
        try:
            await revocations.refresh()
        except Unavailable:
            await asyncio.sleep(0.5)
        else:
            return


async def every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except WardmeshError as error:
            log.info("postponed: %s", error.problem.detail)
