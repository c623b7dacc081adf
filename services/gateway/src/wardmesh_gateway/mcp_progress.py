"""Progress notifications of a running tool call: what the door reports, and a sign of life in between (GW-9)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.context import ServerRequestContext

from wardmesh_gateway.mcp_door import Progress

TICK_SECONDS = 5.0
_LEAST = 0.001


@asynccontextmanager
async def reporting(ctx: ServerRequestContext[Any, Any], tick: float = TICK_SECONDS) -> AsyncGenerator[Progress]:
    """Yields the door's progress function; the value reported always grows, as the protocol demands."""
    last = 0.0

    async def progress(done: float, total: float | None, message: str | None) -> None:
        nonlocal last
        last = max(done, last + _LEAST)
        await ctx.session.report_progress(last, total, message)

    async def alive() -> None:
        while True:
            await asyncio.sleep(tick)
            await progress(0.0, None, "Still working")

    await ctx.session.report_progress(0.0, None, "Started")
    ticker = asyncio.create_task(alive())
    try:
        yield progress
    finally:
        ticker.cancel()
