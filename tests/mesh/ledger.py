"""The ledger as tests read it: over SQL, beside the product."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg


async def events(mesh: Any, request_id: str = "") -> list[dict[str, Any]]:
    """All leaves in order, or those of one request."""
    connection = await asyncpg.connect(mesh.ready["audit_environment"]["WARDMESH_AUDIT_READER_URL"], timeout=60)
    try:
        rows = await connection.fetch(
            "select leaf from event where $1 = '' or request_id = $1 order by seq", request_id, timeout=60
        )
    finally:
        await connection.close()
    return [json.loads(row["leaf"]) for row in rows]


async def place_of(mesh: Any, request_id: str, seconds: float = 60.0) -> tuple[int, int]:
    """Log and index of the first event of this request, as soon as the ledger has it."""
    connection = await asyncpg.connect(mesh.ready["audit_environment"]["WARDMESH_AUDIT_READER_URL"], timeout=60)
    query = "select log_id, seq from event where request_id = $1 order by log_id, seq limit 1"
    try:
        async with asyncio.timeout(seconds):
            while (row := await connection.fetchrow(query, request_id)) is None:
                await asyncio.sleep(0.1)
    finally:
        await connection.close()
    return row["log_id"], row["seq"]


async def until_event(mesh: Any, request_id: str, seconds: float = 60.0) -> list[dict[str, Any]]:
    """Wait until the ledger holds events of this request."""
    async with asyncio.timeout(seconds):
        while not (found := await events(mesh, request_id)):
            await asyncio.sleep(0.1)
    return found


async def recorded_ids(mesh: Any, outcome: str) -> set[str]:
    """Request ids of all calls in the ledger that ended so."""
    connection = await asyncpg.connect(mesh.ready["audit_environment"]["WARDMESH_AUDIT_READER_URL"], timeout=60)
    try:
        rows = await connection.fetch("select distinct request_id from event where outcome = $1", outcome)
    finally:
        await connection.close()
    return {row["request_id"] for row in rows}


async def until_recorded(mesh: Any, ids: set[str], seconds: float = 60.0, outcome: str = "success") -> set[str]:
    """Wait for the ledger to hold these ids; returns what is still missing."""
    missing = set(ids)
    for _ in range(int(seconds * 4)):
        missing = ids - await recorded_ids(mesh, outcome)
        if not missing:
            break
        await asyncio.sleep(0.25)
    return missing
