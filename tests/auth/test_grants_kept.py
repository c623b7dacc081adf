"""What is kept of a sign-in: handles, revocation, renewal after a refusal, key rotation, sweeping."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

import engines
from auth.stage import MASTER_KEY, SEAL_KEY, Stage, stage
from auth.test_sign_in import TOKEN
from wardmesh_auth.client_key_ring import ClientKeyRing
from wardmesh_auth.grant_store import GrantKey, GrantStore
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.rotation import rotate_keys
from wardmesh_auth.sign_in.handles import AuthHandles
from wardmesh_auth.vault import Vault, master_key
from wardmesh_common.asking import Refused
from wardmesh_common.contracts import ASK_RENEWAL
from wardmesh_common.errors import Unauthenticated
from wardmesh_common.questions import RenewalAnswer, RenewalQuestion
from wardmesh_common.token_seal import open_token, seal_token
from wardmesh_common.tokens import principal_id

pytestmark = pytest.mark.anyio


@pytest.fixture
async def scene(postgres: engines.Postgres, nats: engines.Nats) -> AsyncIterator[Stage]:
    async with stage(postgres.url(), nats.url) as ready:
        ready.issuer.token_answer = TOKEN
        yield ready


async def signed_in(scene: Stage) -> str:
    """The cookie of a browser that has connected the platform."""
    first = await scene.procedure("open_auth", {}, platform="sign-in")
    given = {"code": "c", "state": first["state"]}
    assert (await scene.procedure("finish_auth", given, cookie=first["session"]))["page"] == "success"
    return first["session"]


async def count(scene: Stage, table: str) -> int:
    async with scene.replicas[0].database.transaction() as connection:
        return (await connection.execute(text(f"SELECT count(*) FROM auth.{table}"))).scalar_one()


async def test_a_handle_stands_for_who_started_and_for_nobody_and_nothing_else(scene: Stage) -> None:
    bearer = scene.issuer.sign(roles=["Admin"])
    begun = await scene.procedure("start_auth", {}, platform="sign-in", bearer=bearer)
    handle = begun["auth_handle"]
    given = {"code": "c", "state": begun["state"], "platform_id": "sign-in"}
    assert (await scene.procedure("complete_auth", given, platform="sign-in", handle=handle))["success"]
    assert (await scene.call(platform="sign-in", handle=handle)).status == 200
    (call,) = scene.decided
    assert call.principal is not None
    assert call.principal.id == principal_id(scene.issuer.url, "demo_doctor")
    assert call.principal.roles == (), "a handle passes through a model's hands: it brings no role along"
    assert call.caller.handle == ""
    others = scene.issuer.sign(sub="other")
    for wrong in (
        {"platform": "store", "handle": handle},
        {"platform": "sign-in", "handle": handle[:-2] + ("AA" if handle[-2:] != "AA" else "BB")},
        {"platform": "sign-in", "handle": "x"},
        {"platform": "sign-in", "handle": handle, "bearer": others},
    ):
        refused = await scene.call(**wrong)
        assert refused.problem is not None
        assert (refused.status, refused.problem.code) == (401, "invalid_auth_handle")
    await scene.procedure("sign_out", {"everywhere": True}, bearer=bearer)
    assert (await scene.call(platform="sign-in", handle=handle)).status == 401, "signed out everywhere"


def test_a_handle_is_over_after_a_day_and_belongs_to_its_deployment() -> None:
    now = [1_000_000.0]
    ours = AuthHandles(SEAL_KEY, clock=lambda: now[0])
    handle = ours.issue("sid", "p")
    assert ours.read(handle, "p") == "sid"
    for reader, platform, late in ((ours, "q", 0), (AuthHandles(os.urandom(32)), "p", 0), (ours, "p", 86_400)):
        now[0] = 1_000_000.0 + late
        with pytest.raises(Unauthenticated):
            reader.read(handle, platform)


async def test_a_revoked_sign_in_is_gone_here_and_at_the_platform(scene: Stage) -> None:
    cookie = await signed_in(scene)
    assert (await scene.call(platform="sign-in", cookie=cookie)).status == 200
    scene.issuer.fetches.clear()
    gone = await scene.procedure("revoke_auth", {}, platform="sign-in", cookie=cookie)
    assert gone["message"] == "Revoked authentication for sign-in"
    assert scene.issuer.fetches == ["/revoke", "/revoke"]
    assert await count(scene, "platform_grant") == 0
    assert (await scene.call(platform="sign-in", cookie=cookie)).status == 401
    assert scene.records.events[-2:] == ["auth.revoke", ""]


@pytest.mark.requirement("AR-6")
async def test_a_token_that_was_refused_is_renewed_once_for_who_shows_it(scene: Stage) -> None:
    cookie = await signed_in(scene)
    await scene.call(platform="sign-in", cookie=cookie)
    (call,) = scene.decided
    assert call.principal is not None
    assert call.grant is not None
    key = GrantKey("default", call.principal.id, "sign-in")
    store = scene.replicas[0].store
    async with store.exclusively(key) as connection:  # as if it were some minutes old
        old = PlatformToken(
            access_token="CANARY-ACCESS", refresh_token="r", issued_at=time.time() - 600, expires_at=time.time() + 900
        )
        await store.write(connection, key, old)
    scene.issuer.token_answer = TOKEN | {"access_token": "renewed"}
    before = len(scene.issuer.token_requests)
    bound = {"call_id": call.id, "platform": "sign-in", "principal_id": call.principal.id}

    def question(token: str) -> RenewalQuestion:
        sealed = seal_token(SEAL_KEY, token, **bound)
        return RenewalQuestion(tenant="default", sealed_token=sealed, **bound)

    async def ask(token: str) -> str:
        answer = await scene.proxy.ask(ASK_RENEWAL, question(token), RenewalAnswer, timeout_seconds=5)
        return open_token(SEAL_KEY, answer.sealed_token, **bound)

    assert await asyncio.gather(*(ask("CANARY-ACCESS") for _ in range(20))) == ["renewed"] * 20
    assert len(scene.issuer.token_requests) == before + 1
    assert await ask("CANARY-ACCESS") == "renewed", "who hears of the refusal late gets the same new token"
    for token, code in (("renewed", "sign_in_required"), ("guessed", "forbidden")):
        with pytest.raises(Refused) as refused:
            await ask(token)
        assert refused.value.problem.code == code
    assert len(scene.issuer.token_requests) == before + 1
    assert scene.records.events.count("token.refresh") == 1


async def test_after_rotation_the_old_master_key_opens_nothing_and_is_not_needed(scene: Stage) -> None:
    await signed_in(scene)
    await scene.procedure("open_auth", {}, platform="sign-in")
    database, new = scene.replicas[0].database, os.urandom(32)
    both = Vault((new, master_key(MASTER_KEY)))
    assert await rotate_keys(database, both) == 3, "a grant, a sign-in under way and the client keys"
    assert await rotate_keys(database, both) == 0
    alone = GrantStore(database, Vault((new,)))
    (row,) = await _grants(scene)
    stored = await alone.load(GrantKey(*row))
    assert stored is not None
    assert stored.access_token == "CANARY-ACCESS"
    ring = ClientKeyRing(database, Vault((new,)))
    await ring.refresh()
    assert {key["alg"] for key in ring().jwks()["keys"]} == {"RS384", "ES384"}
    await ring.rotate()
    assert len(ring().jwks()["keys"]) == 4, "the old ones stay published until what they signed is over"


async def _grants(scene: Stage) -> list[tuple[str, str, str]]:
    query = text("SELECT tenant, principal_id, platform FROM auth.platform_grant")
    async with scene.replicas[0].database.transaction() as connection:
        return [tuple(row) for row in (await connection.execute(query)).all()]


@pytest.mark.requirement("FG-16")
async def test_nothing_secret_of_a_sign_in_lies_open_in_the_database(scene: Stage) -> None:
    cookie = await signed_in(scene)
    begun = await scene.procedure("start_auth", {}, platform="sign-in", cookie=cookie)
    stored = ""
    for table in ("platform_grant", "pending_sign_in", "consent", "session"):
        async with scene.replicas[0].database.transaction() as connection:
            rows = (await connection.execute(text(f"SELECT t::text FROM auth.{table} t"))).scalars()
            stored += "".join(rows)
            columns = await connection.execute(text(f"SELECT * FROM auth.{table}"))
            stored += "".join(str(bytes(v)) for row in columns for v in row if isinstance(v, bytes | memoryview))
    ticket = begun["authorization_url"].partition("session=")[2]
    for secret in ("CANARY", cookie, begun["state"], ticket):
        assert secret not in stored


@pytest.mark.requirement("FG-34")
async def test_a_session_that_is_over_takes_its_grants_along_and_the_sweep_is_recorded(scene: Stage) -> None:
    over, alive = await signed_in(scene), await signed_in(scene)
    async with scene.replicas[0].database.transaction() as connection:
        ended = "UPDATE auth.session SET expires_at = now() - interval '1 second' WHERE id = :id"
        await connection.execute(text(ended), {"id": (await scene.replicas[0].sessions.find(over)).session})
    await scene.replicas[0].sweep()
    assert scene.records.statuses == [("session.cleanup", {"removed": 1})]
    assert await count(scene, "platform_grant") == 1
    assert (await scene.call(platform="sign-in", cookie=alive)).status == 200
    await scene.procedure("sign_out", {}, cookie=alive)
    assert await count(scene, "platform_grant") == 0
    assert (await scene.call(platform="sign-in", cookie=alive)).status == 401


async def test_refusals_are_recorded_by_what_they_are(scene: Stage) -> None:
    cookie = await signed_in(scene)
    await scene.call(bearer="junk")
    await scene.call(platform="sign-in", cookie=cookie, interaction="delete")
    (row,) = await _grants(scene)
    now = time.time()
    store = scene.replicas[0].store
    async with store.exclusively(GrantKey(*row)) as connection:
        over = PlatformToken(access_token="x", scopes=("patient/*.rs",), issued_at=now - 90, expires_at=now - 1)
        await store.write(connection, GrantKey(*row), over)
    scene.replicas[0].tokens.forget(row[1])
    await scene.call(platform="sign-in", cookie=cookie)
    expected = ["security.invalid_token", "security.scope_violation", "token.expired"]
    assert scene.records.events[-3:] == expected
