"""Watches whether checkpoints are still cosigned and records when they are not: 15 minutes without are an incident."""

from __future__ import annotations

import asyncio
import logging

from wardmesh_audit.witnesses import Witnesses
from wardmesh_audit.writer import Status

LOOK_SECONDS = 30.0

_log = logging.getLogger("wardmesh.audit")


async def watch(witnesses: Witnesses, status: Status, log_id: int = 0, *, every: float = LOOK_SECONDS) -> None:
    """Until cancelled: one event when cosignatures fail to come, one when they come again."""
    told = False
    while True:
        await asyncio.sleep(every)
        overdue = witnesses.overdue
        if overdue and not told:
            _log.critical("no witness has cosigned a checkpoint for 15 minutes")
            await status("uncosigned", {"log": log_id, "witnesses": len(witnesses)})
        elif told and not overdue:
            _log.warning("a witness cosigns again")
            await status("cosigned_again", {"log": log_id, "witnesses": len(witnesses)})
        told = overdue
