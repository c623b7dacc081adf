"""How many follow the ledger at one gateway: each log of a follower counts, and places are free again afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from wardmesh_common.contracts import Caller
from wardmesh_common.errors import BadRequest, Busy
from wardmesh_gateway.asgi import HungUp, Message, Request
from wardmesh_gateway.audit_door import Asked
from wardmesh_gateway.audit_tail import NDJSON, Tails
from wardmesh_gateway.caller import Visit

pytestmark = pytest.mark.anyio


VISIT = Visit(caller=Caller(bearer="t"), budget="b")


class Quiet:
    """A ledger in which nothing happens: the first question is answered, the next ones wait."""

    def __init__(self) -> None:
        self.waiting = 0

    async def answer(self, asked: Asked, request: Request, visit: Visit) -> bytes:
        if asked.arguments["wait_seconds"]:
            self.waiting += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.waiting -= 1
        return b'{"events":[],"cursor":"0:1"}'


def logs(count: int) -> list[Asked]:
    return [Asked(tool="follow_events", arguments={"log": number}) for number in range(count)]


async def follow(tails: Tails, count: int, hung_up: asyncio.Event, begun: asyncio.Event) -> None:
    async def receive() -> Message:
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            begun.set()

    scope: dict[str, Any] = {"method": "GET", "path": "/v1/events/tail", "query_string": b"", "headers": []}
    await tails.serve(logs(count), Request(scope, receive, 0), send, VISIT, NDJSON)


@asynccontextmanager
async def following(tails: Tails, count: int) -> AsyncGenerator[None]:
    hung_up, begun = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(follow(tails, count, hung_up, begun))
    async with asyncio.timeout(30):
        await begun.wait()
        try:
            yield
        finally:
            hung_up.set()
            with pytest.raises(HungUp):
                await task


async def refused(tails: Tails, count: int, error: type[Exception]) -> str:
    with pytest.raises(error) as raised:
        await follow(tails, count, asyncio.Event(), asyncio.Event())
    return str(raised.value)


async def test_every_log_of_a_follower_is_a_call_and_calls_are_what_is_limited() -> None:
    ledger = Quiet()
    tails = Tails(ledger, most_calls=5)
    async with following(tails, 3), following(tails, 1):
        assert "Too many" in await refused(tails, 2, Busy)
        async with following(tails, 1):
            await refused(tails, 1, Busy)
    async with asyncio.timeout(30):
        while ledger.waiting:
            await asyncio.sleep(0)
    async with following(tails, 5):
        await refused(tails, 1, Busy)


async def test_who_asks_for_more_logs_than_can_ever_be_followed_is_told_so_instead_of_to_come_back() -> None:
    tails = Tails(Quiet(), most_calls=5)
    assert "At most 5 logs" in await refused(tails, 6, BadRequest)
    async with following(tails, 5):
        pass
