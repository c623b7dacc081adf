"""Signing in at a platform: the link, the callback, who may finish it, and that any replica can."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import pytest

import engines
from auth.stage import Stage, stage

pytestmark = pytest.mark.anyio
TOKEN = {
    "access_token": "CANARY-ACCESS",
    "refresh_token": "CANARY-REFRESH",
    "token_type": "Bearer",
    "expires_in": 3600,
    "scope": "patient/*.rs",
    "patient": "p1",
}


@pytest.fixture
async def pair(postgres: engines.Postgres, nats: engines.Nats) -> AsyncIterator[Stage]:
    async with stage(postgres.url(), nats.url, replicas=2) as ready:
        ready.issuer.token_answer = TOKEN
        yield ready


def query(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


async def test_a_browser_signs_in_and_its_session_uses_the_grant(pair: Stage) -> None:
    opened = await pair.procedure("open_auth", {"platform_id": "sign-in", "redirect": True}, platform="sign-in")
    asked = query(opened["location"])
    assert asked["state"] == opened["state"]
    cookie = opened["session"]
    back = await pair.procedure(
        "finish_auth", {"code": "c", "state": asked["state"], "path_platform": ""}, cookie=cookie
    )
    assert (back["page"], back["status"], back["platform_name"]) == ("success", 200, "Sign-in")
    status = await pair.procedure("get_auth_status", {"platform_id": "sign-in"}, platform="sign-in", cookie=cookie)
    assert (status["authenticated"], status["has_token"], status["scopes"]) == (True, True, ["patient/*.rs"])
    assert (await pair.call(platform="sign-in", cookie=cookie)).status == 200
    gone = await pair.procedure("revoke_auth", {"platform_id": "sign-in"}, platform="sign-in", cookie=cookie)
    assert gone["success"]
    assert (await pair.call(platform="sign-in", cookie=cookie)).status == 401
    assert {"session.create", "auth.start", "auth.callback", "auth.success", "auth.revoke"} <= set(pair.records.events)


async def test_a_sign_in_that_is_called_off_leads_nowhere_and_keeps_what_was_granted_before(pair: Stage) -> None:
    of, at = {"platform_id": "sign-in"}, {"platform": "sign-in"}
    opened = await pair.procedure("open_auth", of, **at)
    cookie = opened["session"]
    await pair.procedure("finish_auth", {"code": "c", "state": opened["state"]}, cookie=cookie)
    again = await pair.procedure("start_auth", of, cookie=cookie, **at)
    assert (await pair.procedure("wait_for_auth", {**of, "timeout": 0}, cookie=cookie, **at))["pending"]
    assert (await pair.procedure("cancel_auth", of, cookie=cookie, **at))["cancelled"]
    refused = await pair.procedure("wait_for_auth", {**of, "timeout": 0}, cookie=cookie, **at)
    assert refused.reply.problem.code == "sign_in_cancelled"
    ticket = query(again["authorization_url"])["session"]
    late = await pair.procedure("open_auth", {**of, "ticket": ticket}, cookie=cookie, **at)
    assert late["page"] == "invalid_state"
    assert (await pair.procedure("finish_auth", {"code": "c", "state": again["state"]}, cookie=cookie))["status"] == 400
    assert (await pair.procedure("get_auth_status", of, cookie=cookie, **at))["authenticated"]
    assert not (await pair.procedure("cancel_auth", of, cookie=cookie, **at))["cancelled"]
