"""Waits for events that come after a cursor, for followers of the ledger; a bounded number of them at a time."""

from __future__ import annotations

import asyncio

import asyncpg
from msgspec import Struct

from wardmesh_audit.growth import Growth
from wardmesh_audit.query import Line, Page, check_kept, page_between
from wardmesh_audit.query_args import Cursor, FollowArgs, cursor_of, limit_of
from wardmesh_common.errors import BadRequest, Busy

LONGEST_WAIT = 20.0
MOST_FOLLOWERS = 48  # of one replica; each holds a place at the station while it waits
# What reading the ledger leaves in it wakes nobody, or followers would keep each other busy for ever.
_QUIET = frozenset({"audit_read"})
_NOTHING = Page(events=[], next="")


class Followed(Struct, frozen=True, kw_only=True):
    """`cursor` is where to go on, also when nothing matched."""

    events: list[Line]
    cursor: str


class Following:
    def __init__(self, pool: asyncpg.Pool, growth: Growth) -> None:
        self._pool = pool
        self._growth = growth
        self._followers = 0

    async def follow(self, args: FollowArgs, tenant: str, patient: bytes | None, *, known: bool) -> Followed:
        """`known` False: a patient was named whom the ledger does not know, so nothing can match."""
        first = await self._start(args)
        limit = limit_of(args.limit)
        if self._followers >= MOST_FOLLOWERS:
            raise Busy("Too many follow the ledger already.", retry_after=5)
        self._followers += 1
        try:
            page, size = await self._wait(args, tenant, patient, first, limit, known=known)
        finally:
            self._followers -= 1
        return Followed(events=page.events, cursor=page.next or (str(Cursor(args.log, size - 1)) if size else ""))

    async def _start(self, args: FollowArgs) -> int:
        if not args.cursor:
            return await self._growth.size(args.log)
        cursor = cursor_of(args.cursor)
        if cursor.log != args.log:
            raise BadRequest("Invalid cursor: it belongs to another log.")
        async with self._pool.acquire() as conn:
            await check_kept(conn, cursor)
        return cursor.index + 1

    async def _wait(
        self, args: FollowArgs, tenant: str, patient: bytes | None, first: int, limit: int, *, known: bool
    ) -> tuple[Page, int]:
        loop = asyncio.get_running_loop()
        until = loop.time() + min(max(args.wait_seconds, 0.0), LONGEST_WAIT)
        while True:
            size = max(first, await self._growth.size(args.log))
            page = _NOTHING
            if known and size > first:
                async with self._pool.acquire() as conn:
                    page = await page_between(conn, args, tenant, patient, first, size, limit)
            left = until - loop.time()
            if page.types - _QUIET or page.next or left <= 0 or self._growth.stopping():
                return page, size
            if not page.events:
                first = size
            await self._growth.beyond(args.log, size, left)
