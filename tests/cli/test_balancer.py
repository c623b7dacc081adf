"""The balancer spreads requests one by one, streams, and goes on without a replica that is away."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from wardmesh_cli.balancer import Balancer, Pool, Target
from wardmesh_cli.ports import free_port

pytestmark = pytest.mark.anyio


class Replica:
    """A gateway stand-in that says who it is; its readiness can be switched."""

    def __init__(self) -> None:
        self.port = free_port()
        self.admin_port = free_port(taken={self.port})
        self.ready = True
        self.runners: list[web.AppRunner] = []

    async def start(self) -> None:
        app, admin = web.Application(), web.Application()
        app.router.add_get("/who", self._who)
        app.router.add_post("/echo", self._echo)
        app.router.add_get("/drip", self._drip)
        admin.router.add_get("/readyz", self._readiness)
        for port, each in ((self.port, app), (self.admin_port, admin)):
            runner = web.AppRunner(each, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            self.runners.append(runner)

    async def stop(self) -> None:
        for runner in self.runners:
            await runner.cleanup()
        self.runners = []

    async def _who(self, request: web.Request) -> web.Response:
        return web.json_response({"port": self.port, "host": request.headers["Host"]})

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(piece)
        return response

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await asyncio.sleep(30)
        return response

    async def _readiness(self, _request: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready else 503)


@asynccontextmanager
async def front(*replicas: Replica) -> AsyncIterator[tuple[str, Balancer, aiohttp.ClientSession]]:
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(auto_decompress=False) as inner, aiohttp.ClientSession(timeout=timeout) as client:
        port = free_port()
        pool = Pool(port, [Target(each.port, each.admin_port) for each in replicas])
        balancer = Balancer([pool], inner)
        runner = web.AppRunner(balancer.handler(pool), handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        looking = asyncio.create_task(balancer.look())
        try:
            yield f"http://127.0.0.1:{port}", balancer, client
        finally:
            looking.cancel()
            await runner.cleanup()
            for each in replicas:
                await each.stop()


async def pair() -> tuple[Replica, Replica]:
    one, two = Replica(), Replica()
    await one.start()
    await two.start()
    return one, two


async def ask(client: aiohttp.ClientSession, base: str, times: int) -> Counter[int]:
    seen: Counter[int] = Counter()
    for _ in range(times):
        async with client.get(f"{base}/who") as response:
            assert response.status == 200
            seen[(await response.json())["port"]] += 1
    return seen


async def test_requests_of_one_connection_go_to_the_replicas_in_turn_and_keep_their_host() -> None:
    one, two = await pair()
    async with front(one, two) as (base, _, client):
        assert await ask(client, base, 10) == {one.port: 5, two.port: 5}
        async with client.get(f"{base}/who", headers={"Host": "gateway.test"}) as response:
            assert (await response.json())["host"] == "gateway.test"


async def test_a_replica_that_refuses_connections_costs_no_request() -> None:
    one, two = await pair()
    async with front(one, two) as (base, _, client):
        await one.stop()
        assert await ask(client, base, 6) == {two.port: 6}


async def test_a_replica_that_is_not_ready_gets_nothing_while_another_one_is() -> None:
    one, two = await pair()
    async with front(one, two) as (base, balancer, client):
        one.ready = False
        limit = asyncio.get_running_loop().time() + 10
        while balancer.pools[0].targets[0].ready:
            assert asyncio.get_running_loop().time() < limit
            await asyncio.sleep(0.02)
        assert await ask(client, base, 6) == {two.port: 6}


async def test_without_any_replica_the_answer_is_503() -> None:
    one, two = await pair()
    async with front(one, two) as (base, _, client):
        await one.stop()
        await two.stop()
        async with client.get(f"{base}/who") as response:
            assert response.status == 503


async def test_bodies_stream_in_both_directions() -> None:
    one, two = await pair()
    async with front(one, two) as (base, _, client):
        body = bytes(range(256)) * 40_000
        async with client.post(f"{base}/echo", data=io.BytesIO(body)) as response:
            assert await response.read() == body
        async with client.get(f"{base}/drip") as response:
            # The rest of this answer is half a minute away.
            assert await asyncio.wait_for(response.content.readline(), 60) == b"data: first\n"
