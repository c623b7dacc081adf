"""The role `log`: writes what comes into the ledger to the logger `fhir.audit`, for who collects logs (FG-19).

Off by default: these lines name patients. They are made from the ledger's events and are no record of their own.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from wardmesh_audit.fhir_audit import LOGGER, line_of
from wardmesh_audit.ledger import Connection
from wardmesh_audit.projection import MALFORMED
from wardmesh_audit.turns import take_turns

LOOK_SECONDS = 0.5
_MOST_AT_ONCE = 500
_ROWS = "select seq, leaf from event where log_id = $1 and seq >= $2 and seq < $3 and event_type <> $4 order by seq"
_events = msgspec.json.Decoder(dict[str, Any])
_log = logging.getLogger("wardmesh.audit")

Opens = Callable[[bytes], Awaitable[dict[str, Any] | None]]


def audit_logger() -> logging.Logger:
    """One JSON object per line on standard output, whatever the other logs look like."""
    logger = logging.getLogger(LOGGER)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


class LogRole:
    """Begins with what comes after its start; a gap of the database is caught up, a restart is not."""

    def __init__(
        self, connect: Callable[[], Awaitable[Connection]], opens: Opens, logs: Iterable[int], logger: logging.Logger
    ) -> None:
        self._connect, self._opens, self._logger = connect, opens, logger
        self._places: dict[int, int] = dict.fromkeys(logs, -1)

    async def run(self) -> None:
        """Until cancelled; a database that is away is tried again."""
        await take_turns(self._connect, self._turn, LOOK_SECONDS, "log of events")

    async def _turn(self, conn: Connection) -> None:
        for log_id in self._places:
            await self._tell(conn, log_id)

    async def _tell(self, conn: Connection, log_id: int) -> None:
        size = await conn.fetchval("select size from tree_state where log_id = $1", log_id) or 0
        place = self._places[log_id]
        if place < 0:
            self._places[log_id] = size
            return
        while place < size:
            end = min(size, place + _MOST_AT_ONCE)
            for row in await conn.fetch(_ROWS, log_id, place, end, MALFORMED):
                line = line_of(_events.decode(row["leaf"]), await self._opens(row["leaf"]))
                if line is not None:
                    self._logger.info(msgspec.json.encode(line).decode())
                self._places[log_id] = row["seq"] + 1  # what fails now is not told twice
            place = self._places[log_id] = end
