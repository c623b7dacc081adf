"""A hundred calls whose token a platform refuses at the same moment: fhir-proxy and auth together, one refresh."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

import engines
from auth.stage import SEAL_KEY, Stage, stage
from wardmesh_auth.grant_store import GrantKey
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_common.contracts import Call
from wardmesh_common.token_seal import seal_token
from wardmesh_common.vocabulary import Decision, Grant
from wardmesh_fhir_proxy.app import token_opener, token_renewer
from wardmesh_fhir_proxy.catalogue import Platforms
from wardmesh_fhir_proxy.cursors import Cursors
from wardmesh_fhir_proxy.exchange import Exchanges
from wardmesh_fhir_proxy.performer import Performer
from wardmesh_fhir_proxy.upstream import Transport, UpstreamRequest

pytestmark = pytest.mark.anyio
TOKEN = {"access_token": "old", "refresh_token": "r", "token_type": "Bearer", "expires_in": 3600, "scope": "user/*.rs"}
MANY = 100


class Hop:
    def remaining(self) -> float:
        return 20.0

    async def body(self) -> bytes:
        return b""


class Unsigned:
    async def sign(self, descriptor: object, request: UpstreamRequest) -> UpstreamRequest:
        return request


class Hospital:
    """Takes the token `renewed` and refuses any other."""

    def __init__(self) -> None:
        self.url, self.refused = "", 0

    async def answer(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer renewed":
            self.refused += 1
            return web.json_response({}, status=401)
        return web.json_response({"resourceType": "Patient", "id": "p1"}, content_type="application/fhir+json")


@asynccontextmanager
async def hospital() -> AsyncIterator[Hospital]:
    server, app = Hospital(), web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/r4"
    try:
        yield server
    finally:
        await runner.cleanup()


@pytest.fixture
async def pair(postgres: engines.Postgres, nats: engines.Nats) -> AsyncIterator[Stage]:
    async with stage(postgres.url(), nats.url, replicas=2) as ready:
        ready.issuer.token_answer = TOKEN
        yield ready


def copied(seen: Call, number: int) -> Call:
    """One of many calls of the same person, decided, with the token that auth lends it."""
    assert seen.principal is not None
    call = msgspec.structs.replace(seen, id=f"call-{number}", sent_at=time.time())
    bound = {"call_id": call.id, "platform": call.platform, "principal_id": seen.principal.id}
    call.grant = Grant(platform=call.platform, sealed_token=seal_token(SEAL_KEY, "old", **bound))
    call.decision = Decision(
        id="d", allowed=True, reason="", policy_version="1", covers=call.digest(), expires=time.time() + 60
    )
    return call


async def signed_in_call(scene: Stage) -> Call:
    """A call of somebody whose grant is some minutes old."""
    first = await scene.procedure("open_auth", {}, platform="sign-in")
    back = await scene.procedure("finish_auth", {"code": "c", "state": first["state"]}, cookie=first["session"])
    assert back["page"] == "success"
    await scene.call(platform="sign-in", cookie=first["session"])
    (call,) = scene.decided
    assert call.principal is not None
    key, store = GrantKey("default", call.principal.id, "sign-in"), scene.replicas[0].store
    old = PlatformToken(
        access_token="old",
        refresh_token="r",
        issued_at=time.time() - 600,
        expires_at=time.time() + 900,
    )
    async with store.exclusively(key) as connection:
        await store.write(connection, key, old)
    return call


def performer(scene: Stage, transport: Transport, folder: Path, base: str) -> Performer:
    document = {"id": "sign-in", "name": "Sign-in", "type": "ehr", "fhir_version": "R4", "bases": {"patient": base}}
    (folder / "sign-in.yaml").write_bytes(msgspec.json.encode(document))

    async def unasked(*_: Any) -> Any:
        raise AssertionError("nothing here needs it")

    renew = token_renewer(scene.proxy, SEAL_KEY)
    exchanges = Exchanges(transport, Unsigned())
    keys = Cursors([bytes(32)])
    return Performer(
        Platforms(folder), exchanges, keys, token_opener(SEAL_KEY), unasked, unasked, renew, control_desk=unasked
    )  # type: ignore[arg-type]


@pytest.mark.requirement("PX-9")
async def test_a_hundred_parallel_401s_cause_one_refresh_and_all_are_answered(pair: Stage, tmp_path: Path) -> None:
    call = await signed_in_call(pair)
    pair.issuer.token_answer = TOKEN | {"access_token": "renewed"}
    before, transport = len(pair.issuer.token_requests), Transport()
    try:
        async with hospital() as server:
            made = performer(pair, transport, tmp_path, server.url)
            async with asyncio.timeout(60):
                done = await asyncio.gather(*(made.perform(copied(call, n), Hop()) for n in range(MANY)))
    finally:
        await transport.close()
    assert [outcome.status for outcome in done] == [200] * MANY
    assert server.refused == MANY, "each was refused once, and repeated once"
    assert len(pair.issuer.token_requests) == before + 1
