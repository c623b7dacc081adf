"""complete_auth: what a client received itself, as single values or as the whole address it was redirected to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import pytest

import engines
from auth.smart_clinic import Clinic, clinic
from auth.stage import Answered, Stage, stage
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.sign_in_facts import SignInFacts

pytestmark = pytest.mark.anyio
TOKEN = {"access_token": "CANARY-ACCESS", "token_type": "Bearer", "expires_in": 3600, "scope": "patient/*.rs"}
AT = "named"
HERE = "https://mesh.example/auth/callback"


@pytest.fixture
async def server() -> AsyncIterator[Clinic]:
    async with clinic() as ready:
        places = {name: f"{ready.url}/v/r4/auth/{name}" for name in ("authorize", "token")}
        ready.configuration = {
            "issuer": ready.base,
            "authorization_endpoint": places["authorize"],
            "token_endpoint": places["token"],
            "authorization_response_iss_parameter_supported": True,
        }
        ready.body = json.dumps(TOKEN).encode()
        yield ready


@pytest.fixture
async def scene(postgres: engines.Postgres, nats: engines.Nats, server: Clinic) -> AsyncIterator[Stage]:
    async with stage(postgres.url(), nats.url, replicas=1, oauth_redirect_uri=HERE) as ready:
        facts = PlatformFacts(
            id=AT,
            name="Named",
            type="ehr",
            auth_method="authorization_code",
            has_oauth=True,
            fhir_base_url=server.base,
            scopes="patient/*.rs",
            sign_in=SignInFacts(client_id="everyone"),
        )
        await ready.change_catalogue(*ready.catalogue, facts)
        async with asyncio.timeout(30):
            while AT not in {each.id for each in ready.replicas[0].platforms.all()}:
                await asyncio.sleep(0.005)
        yield ready


async def begun(scene: Stage, bearer: str) -> str:
    """The state of a new sign-in."""
    started = await scene.procedure("start_auth", {"platform_id": AT}, platform=AT, bearer=bearer)
    return started["state"]


async def complete(scene: Stage, bearer: str, **given: str) -> Answered:
    return await scene.procedure("complete_auth", {"platform_id": AT, **given}, platform=AT, bearer=bearer)


@pytest.mark.requirement("FG-22")
async def test_a_platform_that_says_who_answers_is_finished_with_its_iss(scene: Stage, server: Clinic) -> None:
    me = scene.issuer.sign(sub="asker")
    state = await begun(scene, me)
    silent = await complete(scene, me, code="c", state=state)
    assert (silent.reply.status, silent.code) == (400, "invalid_request")
    assert "redirect_url" in silent.reply.problem.detail, "and the state is still good"
    assert (await complete(scene, me, code="c", state=state, iss=server.base))["success"]


async def test_the_redirect_may_be_pasted_as_a_whole(scene: Stage, server: Clinic) -> None:
    me = scene.issuer.sign(sub="asker")
    state = await begun(scene, me)
    pasted = f" {HERE}?{urlencode({'code': 'c', 'state': state, 'iss': server.base})}\n"
    assert (await complete(scene, me, redirect_url=pasted))["success"]
    again = await complete(scene, me, redirect_url=pasted)
    assert (again.code, scene.records.events[-1]) == ("invalid_request", "security.invalid_state")


async def test_an_answer_of_another_server_ends_the_sign_in(scene: Stage, server: Clinic) -> None:
    me = scene.issuer.sign(sub="asker")
    state = await begun(scene, me)
    mixed_up = await complete(scene, me, code="c", state=state, iss="https://other.example")
    assert (mixed_up.code, server.forms) == ("session_error", []), "the code went nowhere"
    assert (await complete(scene, me, code="c", state=state, iss=server.base)).code == "invalid_request"


async def test_a_refusal_in_the_pasted_address_is_told_as_one(scene: Stage, server: Clinic) -> None:
    me = scene.issuer.sign(sub="asker")
    state = await begun(scene, me)
    refused = await complete(scene, me, redirect_url=f"{HERE}?{urlencode({'error': 'no', 'state': state})}")
    assert (refused.code, scene.records.events[-1]) == ("session_error", "auth.failure")


@pytest.mark.parametrize(
    "bent",
    [
        {"redirect_url": "https://elsewhere.example/auth/callback?code=c&state=s"},
        {"redirect_url": "{here}?code=c&code=d&state=s"},
        {"redirect_url": "{here}?code=c"},
        {"redirect_url": "{here}?state=s"},
        {"redirect_url": "http://[?code=c&state=s"},
        {"redirect_url": "{here}?code=c&state=s", "code": "c"},
        {"redirect_url": "{here}?" + "&".join(f"x{n}=1" for n in range(40))},
        {"code": "c"},
        {"state": "s"},
        {},
    ],
)
async def test_what_is_no_answer_of_ours_is_refused_clearly(scene: Stage, bent: dict[str, Any]) -> None:
    given = {name: value.replace("{here}", HERE) for name, value in bent.items()}
    refused = await complete(scene, scene.issuer.sign(sub="asker"), **given)
    assert (refused.reply.status, refused.code) == (400, "invalid_request")
