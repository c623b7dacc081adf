"""What a sign-in is bound to: the person who asked, one browser, one use, fifteen minutes; and hostile input."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text

import engines
from auth.stage import Answered, Stage, stage
from auth.test_sign_in import TOKEN, query
from wardmesh_common.vocabulary import Principal

pytestmark = pytest.mark.anyio


@pytest.fixture
async def scene(postgres: engines.Postgres, nats: engines.Nats) -> AsyncIterator[Stage]:
    async with stage(postgres.url(), nats.url) as ready:
        ready.issuer.token_answer = TOKEN
        yield ready


async def start(scene: Stage, who: str = "asker") -> tuple[Answered, str]:
    """start_auth of an agent, and the one-time value of its link."""
    bearer = scene.issuer.sign(sub=who)
    begun = await scene.procedure("start_auth", {"platform_id": "sign-in"}, platform="sign-in", bearer=bearer)
    return begun, query(begun["authorization_url"])["session"]


async def browser_of(scene: Stage, who: str) -> str:
    """The cookie of a browser in which this person has signed in."""
    verified = await scene.replicas[0].verifier.verify(scene.issuer.sign(sub=who))
    return (await scene.replicas[0].sessions.create(Principal(id=verified.principal_id))).secret


async def open_link(scene: Stage, ticket: str, **caller: Any) -> Answered:
    return await scene.procedure("open_auth", {"ticket": ticket}, platform="sign-in", **caller)


async def come_back(scene: Stage, state: str, cookie: str = "", **more: Any) -> Answered:
    return await scene.procedure("finish_auth", {"code": "c", "state": state, **more}, cookie=cookie)


async def grants(scene: Stage) -> int:
    async with scene.replicas[0].database.transaction() as connection:
        return (await connection.execute(text("SELECT count(*) FROM auth.platform_grant"))).scalar_one()


async def age(scene: Stage, seconds: int) -> None:
    """As if this time had gone by for every sign-in under way."""
    change = text(f"UPDATE auth.pending_sign_in SET expires_at = expires_at - interval '{seconds} seconds'")
    async with scene.replicas[0].database.transaction() as connection:
        await connection.execute(change)


@pytest.mark.requirement("FG-22")
async def test_who_asked_opens_the_link_and_the_agent_hears_of_it(scene: Stage) -> None:
    begun, ticket = await start(scene)
    assert set(begun.body) == {"authorization_url", "state", "platform_id", "auth_handle", "message", "expires_at"}
    assert begun["authorization_url"].startswith("http://localhost:8000/auth/sign-in/login?session=")
    bearer = scene.issuer.sign(sub="asker")
    asked = {"platform_id": "sign-in", "timeout": 0}
    pending = await scene.procedure("wait_for_auth", asked, platform="sign-in", bearer=bearer)
    assert (pending["success"], pending["pending"]) == (False, True)
    cookie = await browser_of(scene, "asker")
    opened = await open_link(scene, ticket, cookie=cookie)
    assert query(opened["location"])["state"] == begun["state"]
    assert (await come_back(scene, begun["state"], cookie))["page"] == "success"
    done = await scene.procedure("wait_for_auth", asked, platform="sign-in", bearer=bearer)
    assert (done["success"], 3500 < done["expires_in"] <= 3600) == (True, True)
    assert (await scene.call(platform="sign-in", bearer=bearer)).status == 200, "one person over both faces"


@pytest.mark.requirement("X-7")
async def test_a_victim_who_opens_the_link_of_an_attacker_is_refused_and_it_is_recorded(scene: Stage) -> None:
    begun, ticket = await start(scene, "attacker")
    victim = await browser_of(scene, "victim")
    refused = await open_link(scene, ticket, cookie=victim)
    assert (refused.reply.status, refused.body["page"]) == (400, "session_mismatch")
    assert scene.records.events[-1] == "security.session_mismatch"
    # Nor does it help to open it oneself and send the victim on to the platform.
    attacker = await browser_of(scene, "attacker")
    state = query((await open_link(scene, ticket, cookie=attacker))["location"])["state"]
    assert state == begun["state"]
    finished = await come_back(scene, state, victim)
    assert (finished.reply.status, finished.body["page"]) == (400, "session_mismatch")
    assert scene.issuer.token_requests == [], "the code is not even exchanged"
    assert await grants(scene) == 0
    assert (await come_back(scene, state, attacker)).body["page"] == "invalid_state"


async def test_a_browser_in_which_nobody_signed_in_is_sent_to_sign_in_first_and_comes_back_to_the_link(
    scene: Stage,
) -> None:
    scene.issuer.metadata_at.add("/.well-known/openid-configuration")
    _, ticket = await start(scene)
    sent = await open_link(scene, ticket)
    assert sent["location"].startswith(f"{scene.issuer.url}/authorize")
    asked = query(sent["location"])
    assert (asked["client_id"], asked["code_challenge_method"]) == ("wardmesh-web", "S256")
    assert asked["redirect_uri"] == "http://localhost:8000/auth/callback"
    scene.issuer.token_answer = {"access_token": scene.issuer.sign(sub="asker"), "token_type": "Bearer"}
    let_in = await come_back(scene, asked["state"], sent["session"])
    assert let_in["location"] == f"/auth/sign-in/login?session={ticket}"
    assert let_in["session"] != sent["session"], "what the browser held before is worth nothing now"
    assert (await scene.call(cookie=sent["session"])).status == 401
    assert "location" in (await open_link(scene, ticket, cookie=let_in["session"])).body


@pytest.mark.requirement("B-4")
@pytest.mark.parametrize("who", ["asker", "other"])
async def test_a_link_is_good_once_for_fifteen_minutes_and_as_it_was(scene: Stage, who: str) -> None:
    cookie = await browser_of(scene, who)
    for wrong in ("", "A" * 43):
        assert (await open_link(scene, wrong or "x", cookie=cookie)).body["page"] == "invalid_state"
    if who == "asker":
        _, ticket = await start(scene)
        assert "location" in (await open_link(scene, ticket, cookie=cookie)).body
        assert (await open_link(scene, ticket, cookie=cookie)).body["page"] == "invalid_state"
    _, late = await start(scene)
    await age(scene, 901)
    refused = await open_link(scene, late, cookie=cookie)
    assert (refused.reply.status, refused.body["page"]) == (400, "invalid_state")
    assert scene.records.events[-1] == "security.invalid_state"


@pytest.mark.requirement("FG-13")
async def test_a_state_is_good_once_for_its_platform_and_fifteen_minutes(scene: Stage) -> None:
    first = await scene.procedure("open_auth", {}, platform="sign-in")
    state, cookie = first["state"], first["session"]
    assert (len(state), set(state) <= set("0123456789abcdef")) == (48, True)
    elsewhere = await come_back(scene, state, cookie, path_platform="store")
    assert elsewhere.body["page"] == "invalid_state"
    assert (await come_back(scene, state, cookie)).body["page"] == "invalid_state", "it is used up by the first answer"
    late = await scene.procedure("open_auth", {}, platform="sign-in", cookie=cookie)
    await age(scene, 901)
    assert (await come_back(scene, late["state"], cookie)).body["page"] == "invalid_state"
    good = await scene.procedure("open_auth", {}, platform="sign-in", cookie=cookie)
    assert (await come_back(scene, good["state"], cookie, path_platform="sign-in")).body["page"] == "success"
    assert (await come_back(scene, good["state"], cookie)).body["page"] == "invalid_state"


@pytest.mark.requirement("X-17")
async def test_every_way_a_sign_in_can_fail_has_its_page_and_its_record(scene: Stage) -> None:
    first = await scene.procedure("open_auth", {}, platform="sign-in")
    cookie = first["session"]

    async def fresh() -> str:
        return (await scene.procedure("open_auth", {}, platform="sign-in", cookie=cookie))["state"]

    async def page(**given: Any) -> tuple[str, int, str]:
        back = await scene.procedure("finish_auth", given, cookie=cookie)
        assert "CANARY" not in str(back.body)
        return back.body["page"], back.reply.status, scene.records.events[-1]

    assert await page(error="access_denied", state=await fresh()) == ("failed", 400, "auth.failure")
    asked = {"platform_id": "sign-in", "timeout": 0}
    told = await scene.procedure("wait_for_auth", asked, platform="sign-in", cookie=cookie)
    assert (told.reply.status, told.code) == (400, "session_error")
    assert await page(error="x") == ("failed", 400, "auth.failure")
    assert await page(state=await fresh()) == ("invalid_request", 400, "auth.failure")
    assert await page(code="c") == ("invalid_state", 400, "security.invalid_state")
    scene.issuer.token_status = 400
    assert await page(code="c", state=await fresh()) == ("token_exchange_failed", 500, "auth.failure")
    scene.issuer.token_status = 200
    gone = await fresh()
    await scene.change_catalogue(*(f for f in scene.catalogue if f.id != "sign-in"))
    async with asyncio.timeout(30):
        while "sign-in" in {facts.id for facts in scene.replicas[0].platforms.all()}:
            await asyncio.sleep(0.005)
    assert await page(code="c", state=gone) == ("platform_error", 400, "auth.failure")


async def test_a_code_that_the_client_received_itself_is_good_for_who_started_only(scene: Stage) -> None:
    begun, _ = await start(scene)
    given = {"platform_id": "sign-in", "code": "c", "state": begun["state"]}
    other = await scene.procedure("complete_auth", given, platform="sign-in", bearer=scene.issuer.sign(sub="other"))
    assert (other.reply.status, other.code) == (400, "invalid_request")
    assert scene.records.events[-1] == "security.invalid_state"
    begun, _ = await start(scene)
    given["state"] = begun["state"]
    mine = scene.issuer.sign(sub="asker")
    done = await scene.procedure("complete_auth", given, platform="sign-in", bearer=mine)
    assert done["success"]
    again = await scene.procedure("complete_auth", given, platform="sign-in", bearer=mine)
    assert again.code == "invalid_request"


@pytest.mark.parametrize("tool", ["finish_auth", "complete_auth", "open_auth", "sign_in", "wait_for_auth"])
async def test_no_arguments_whatever_make_an_error_of_ours(scene: Stage, tool: str) -> None:
    rng = random.Random(tool)
    alphabet = string.printable + "\u0000\u2028é𝄞\udcff"[:4] + "'\";--<>%00"
    first = await scene.procedure("open_auth", {}, platform="sign-in")
    names = (
        "code",
        "state",
        "error",
        "iss",
        "path_platform",
        "platform_id",
        "next",
        "ticket",
        "launch",
        "timeout",
        "x",
    )
    for _ in range(60):
        given: dict[str, Any] = {}
        for name in rng.sample(names, rng.randint(0, 5)):
            junk = "".join(rng.choices(alphabet, k=rng.choice((0, 1, 48, 300))))
            given[name] = rng.choice((junk, junk, None, 7, [junk], {"a": junk}, "A" * 5000))
        cookie = rng.choice((first["session"], "", "junk"))
        bearer = scene.issuer.sign(sub="asker") if tool in ("complete_auth", "wait_for_auth") else ""
        caller = {"bearer": bearer} if bearer else {"cookie": cookie}
        answered = await scene.procedure(tool, given, platform=rng.choice(("sign-in", "")), **caller)
        assert answered.reply.status < 500 or answered.reply.status == 503, given
        assert all(outcome.expected for _, outcome in scene.records.outcomes)
