"""Access tokens that are no JWT: asked about at the issuer, judged by the same rules, kept for a moment."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

import engines
from auth.fake_issuer import AUDIENCE
from auth.stage import Stage, stage
from wardmesh_common.asking import Refused
from wardmesh_common.contracts import ASK_TOKEN
from wardmesh_common.questions import TokenAnswer, TokenQuestion

pytestmark = pytest.mark.anyio


class Endpoint:
    """RFC 7662 on loopback: knows some tokens, wants our client."""

    def __init__(self) -> None:
        self.url = ""
        self.known: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.status = 200

    async def answer(self, request: web.Request) -> web.Response:
        ours = base64.b64encode(b"mesh:CANARY-SECRET").decode()
        if request.headers.get("Authorization") != f"Basic {ours}":
            return web.Response(status=401)
        token = str((await request.post())["token"])
        self.asked.append(token)
        return web.json_response(self.known.get(token, {"active": False}), status=self.status)


@asynccontextmanager
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    app = web.Application()
    app.router.add_post("/introspect", made.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/introspect"
    try:
        yield made
    finally:
        await runner.cleanup()


@pytest.fixture
async def pair(postgres: engines.Postgres, nats: engines.Nats) -> AsyncIterator[tuple[Stage, Endpoint]]:
    async with endpoint() as asked:
        options = {
            "introspection_url": asked.url,
            "introspection_client_id": "mesh",
            "introspection_client_secret": "CANARY-SECRET",
        }
        async with stage(postgres.url(), nats.url, **options) as scene:
            yield scene, asked


def active(**claims: Any) -> dict[str, Any]:
    return {
        "active": True,
        "sub": "demo_doctor",
        "aud": AUDIENCE,
        "exp": time.time() + 600,
        "scope": "fhir.read",
        **claims,
    }


async def test_an_active_token_is_a_principal_and_the_issuer_is_asked_once(pair: tuple[Stage, Endpoint]) -> None:
    scene, issuer = pair
    issuer.known["opaque"] = active(roles=["Doctor"], client_id="cli")
    replies = await asyncio.gather(*(scene.call(bearer="opaque") for _ in range(20)))
    assert {reply.status for reply in replies} == {200}
    assert issuer.asked == ["opaque"]
    principal = scene.decided[0].principal
    assert principal is not None
    assert (principal.roles, principal.client_id) == (("Doctor",), "cli")
    told = await scene.gateway.ask(ASK_TOKEN, TokenQuestion(token="opaque"), TokenAnswer)
    assert (told.principal_id, told.roles, told.scopes) == (principal.id, ("Doctor",), ("fhir.read",))
    assert (await scene.call(bearer=scene.issuer.sign())).status == 200, "signed tokens go on as before"


@pytest.mark.parametrize(
    "claims",
    [
        {"active": False},
        {"active": "true", "sub": "x", "aud": AUDIENCE},
        active(aud="https://other.example"),
        active(aud=None),
        active(iss="https://other.example"),
        active(exp=1),
        active(sub=""),
        {},
    ],
)
async def test_a_token_that_is_over_foreign_or_for_somebody_else_is_refused(
    pair: tuple[Stage, Endpoint], claims: dict[str, Any]
) -> None:
    scene, issuer = pair
    issuer.known["opaque"] = claims
    for _ in range(3):
        assert (await scene.call(bearer="opaque")).status == 401
    assert issuer.asked == ["opaque"], "a token that does not hold is not asked about at every try"
    with pytest.raises(Refused) as refused:
        await scene.gateway.ask(ASK_TOKEN, TokenQuestion(token="opaque"), TokenAnswer)
    assert refused.value.problem.status == 401


async def test_an_issuer_that_does_not_answer_is_trouble_and_no_verdict(pair: tuple[Stage, Endpoint]) -> None:
    scene, issuer = pair
    issuer.known["opaque"], issuer.status = active(), 500
    assert (await scene.call(bearer="opaque")).status == 503
    issuer.status = 200
    assert (await scene.call(bearer="opaque")).status == 200
