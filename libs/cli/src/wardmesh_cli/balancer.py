"""Spreads requests over gateway replicas one by one: streams both ways, keeps Host, goes on when one is away."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import logging
import signal
import sys
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from yarl import URL

from wardmesh_cli.probes import http_ok

POLL_SECONDS = 0.1
TOTAL_SECONDS = 900
CONNECT_SECONDS = 2
GRACE_SECONDS = 5.0
# Meaningful for one connection only (RFC 9110 section 7.6.1).
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length")
)


@dataclass
class Target:
    """One replica behind one listener."""

    port: int
    admin_port: int
    ready: bool = True
    out: bool = False  # taken out before an orderly restart
    active: int = 0


@dataclass
class Pool:
    """The replicas of one public port."""

    port: int
    targets: list[Target]
    turn: itertools.count[int] = field(default_factory=itertools.count)

    def order(self) -> list[Target]:
        """All replicas, beginning with the next one; those not ready come last: a stale "no" must not refuse a call."""
        first = next(self.turn) % len(self.targets)
        turned = [*self.targets[first:], *self.targets[:first]]
        usable = [target for target in turned if target.ready and not target.out]
        return usable + [target for target in turned if not target.ready and not target.out]


def forwarded(request: web.Request) -> list[tuple[str, str]]:
    dropped = HOP_BY_HOP | {name.strip().lower() for name in request.headers.get("Connection", "").split(",")}
    headers = [(name, value) for name, value in request.headers.items() if name.lower() not in dropped - {""}]
    if "Content-Length" in request.headers:
        headers.append(("Content-Length", request.headers["Content-Length"]))
    headers.append(("X-Forwarded-For", request.remote or "127.0.0.1"))
    return headers


class Balancer:
    def __init__(self, pools: list[Pool], session: aiohttp.ClientSession) -> None:
        self.pools = pools
        self._session = session

    def handler(self, pool: Pool) -> web.Application:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._pass_on(pool, request)

        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{tail:.*}", handle)
        return app

    async def _pass_on(self, pool: Pool, request: web.Request) -> web.StreamResponse:
        for target in pool.order():
            target.active += 1
            try:
                return await self._exchange(target, request)
            except aiohttp.ClientConnectorError:
                target.ready = False  # nothing was sent: the next one may try
            except (aiohttp.ClientError, TimeoutError):
                return web.Response(status=502, text="the gateway replica went away\n")
            finally:
                target.active -= 1
        return web.Response(status=503, text="no gateway replica is up\n", headers={"Retry-After": "1"})

    async def _exchange(self, target: Target, request: web.Request) -> web.StreamResponse:
        url = URL(f"http://127.0.0.1:{target.port}{request.raw_path}", encoded=True)
        body = request.content if request.body_exists else None
        async with self._session.request(
            request.method,
            url,
            headers=forwarded(request),
            data=body,
            allow_redirects=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        ) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    response.headers.add(name, value)
            if "Content-Length" in answer.headers:
                response.headers["Content-Length"] = answer.headers["Content-Length"]
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    async def look(self) -> None:
        """Keeps `ready` current."""
        targets = [target for pool in self.pools for target in pool.targets]
        while True:
            answers = await asyncio.gather(*(http_ok(target.admin_port, "/readyz") for target in targets))
            for target, answer in zip(targets, answers, strict=True):
                target.ready = answer
            await asyncio.sleep(POLL_SECONDS)

    def admin(self) -> web.Application:
        """Readiness, and `POST /out/{admin_port}` or `/in/{admin_port}` around an orderly restart."""

        async def ready(_request: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def turn(request: web.Request) -> web.Response:
            chosen = [
                target
                for pool in self.pools
                for target in pool.targets
                if str(target.admin_port) == request.match_info["admin"]
            ]
            for target in chosen:
                target.out = request.match_info["way"] == "out"
                target.ready = True
            limit = asyncio.get_running_loop().time() + GRACE_SECONDS
            while any(target.out and target.active for target in chosen):
                if asyncio.get_running_loop().time() > limit:
                    break
                await asyncio.sleep(0.01)
            return web.Response(text="ok\n")

        app = web.Application()
        app.router.add_get("/readyz", ready)
        app.router.add_get("/livez", ready)
        app.router.add_post("/{way:in|out}/{admin}", turn)
        return app


async def serve(pools: list[Pool], admin_port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Our idle connections end before the server's do, so that no request meets a closing one.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    timeout = aiohttp.ClientTimeout(total=TOTAL_SECONDS, sock_connect=CONNECT_SECONDS)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        balancer = Balancer(pools, session)
        runners: list[web.AppRunner] = []
        apps = [(pool.port, balancer.handler(pool)) for pool in pools] + [(admin_port, balancer.admin())]
        for port, app in apps:
            runner = web.AppRunner(
                app, access_log=None, handler_cancellation=True, auto_decompress=False, shutdown_timeout=GRACE_SECONDS
            )
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
            runners.append(runner)
        looking = asyncio.create_task(balancer.look())
        await stop.wait()
        looking.cancel()
        for runner in runners:
            await runner.cleanup()


def main() -> int:
    logging.basicConfig(level=logging.WARNING)
    parser = argparse.ArgumentParser(prog="wardmesh-balancer")
    parser.add_argument("--listen", action="append", required=True, metavar="PORT=REPLICA:ADMIN,...")
    parser.add_argument("--admin", type=int, required=True)
    arguments = parser.parse_args()
    pools: list[Pool] = []
    for text in arguments.listen:
        port, _, replicas = text.partition("=")
        pairs = [part.split(":") for part in replicas.split(",")]
        pools.append(Pool(int(port), [Target(int(inner), int(admin)) for inner, admin in pairs]))
    asyncio.run(serve(pools, arguments.admin))
    return 0


if __name__ == "__main__":
    sys.exit(main())
