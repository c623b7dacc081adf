"""A role that looks at the database again and again, on one connection as long as that lasts.

Publisher and background verification have loops of their own: their connection holds a lock, which has to come first.
Retention looks once in an hour, on a new connection each time: one that lay idle so long may be gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from wardmesh_audit.ledger import Connection
from wardmesh_audit.writer import TRANSIENT

_log = logging.getLogger("wardmesh.audit")


async def take_turns(
    connect: Callable[[], Awaitable[Connection]],
    turn: Callable[[Connection], Awaitable[Any]],
    pause_seconds: float,
    role: str,
) -> None:
    """Until cancelled; a database or broker that is away is tried again. Raises whatever else a turn raises."""
    while True:
        try:
            conn = await connect()
            try:
                while True:
                    await turn(conn)
                    await asyncio.sleep(pause_seconds)
            finally:
                conn.terminate()
        except TRANSIENT as error:
            _log.warning("%s: %s, trying again", role, type(error).__name__)
        await asyncio.sleep(pause_seconds)
