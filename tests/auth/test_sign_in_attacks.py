"""What an adversary tries against sign-in: second spellings, late answers, other servers, bursts, ids of elsewhere."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

import engines
from auth.fake_issuer import other_keys
from auth.stage import Answered, Stage, stage, until
from auth.test_sign_in import TOKEN
from auth.test_tokens import scene as verifying
from wardmesh_auth.accounts.seed import SeedAccount
from wardmesh_auth.grant_store import GrantKey
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.platform_tokens import PlatformTokens
from wardmesh_common.questions import GrantChanged, PlatformFacts

pytestmark = pytest.mark.anyio
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SECRET = "a secret key of a deployment, 32+ characters"


@pytest.fixture
async def scene(postgres: engines.Postgres, nats: engines.Nats) -> AsyncIterator[Stage]:
    accounts = (SeedAccount(username="dana", password="CANARY-right", roles=("Doctor",)),)
    async with stage(postgres.url(), nats.url, replicas=2, secret_key=SECRET, accounts=accounts) as ready:
        ready.issuer.token_answer = TOKEN
        yield ready


async def opened(scene: Stage, **arguments: Any) -> Answered:
    return await scene.procedure("open_auth", arguments, platform="sign-in")


async def back(scene: Stage, begun: Answered, **more: Any) -> Answered:
    given = {"code": "c", "state": begun["state"], **more}
    return await scene.procedure("finish_auth", given, cookie=begun["session"])


async def count(scene: Stage, table: str) -> int:
    async with scene.replicas[0].database.transaction() as connection:
        return (await connection.execute(text(f"SELECT count(*) FROM auth.{table}"))).scalar_one()


def respelled(token: str) -> str:
    """The same ECDSA signature in its second form, which everybody can compute: (r, n - s)."""
    signed, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    second = raw[:32] + (P256_ORDER - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    return f"{signed}.{base64.urlsafe_b64encode(second).rstrip(b'=').decode()}"


async def test_a_token_that_was_given_back_is_refused_in_every_spelling() -> None:
    async with verifying() as (issuer, verifier, _):
        key = other_keys()["ES256"]
        issuer.published.append(key)
        token = issuer.sign(key, alg="ES256")
        assert respelled(token) != token
        one, two = await verifier.verify(token), await verifier.verify(respelled(token))
        # What is revoked is named by this digest.
        assert one.digest == two.digest
        other = await verifier.verify(issuer.sign(key, alg="ES256", jti="another"))
        assert other.digest != one.digest
        verifier.forget(digest=one.digest)
        assert await verifier.verify(token) is not one
        assert await verifier.verify(respelled(token)) is not two


async def test_a_burst_of_guesses_gets_no_more_attempts_than_single_ones(scene: Stage) -> None:
    guesses = [
        scene.procedure("issue_tokens", {"username": "dana", "password": f"g{n}"}, ip=f"203.0.113.{n}")
        for n in range(24)
    ]
    statuses = [answered.reply.status for answered in await asyncio.gather(*guesses)]
    assert (statuses.count(401), statuses.count(429)) == (10, 14)


async def test_log_ins_that_succeed_use_up_nothing_of_their_address(scene: Stage) -> None:
    for _ in range(3):
        right = {"username": "dana", "password": "CANARY-right"}
        assert (await scene.procedure("issue_tokens", right, ip="203.0.113.7")).reply.status == 200
    async with scene.replicas[0].database.transaction() as connection:
        left = (await connection.execute(text("SELECT failures FROM auth.failed_log_in"))).scalars().all()
    assert list(left) == [0]


@pytest.mark.parametrize("ends", ["revoke_auth", "sign_out"])
async def test_a_sign_in_that_was_ended_while_the_platform_answers_grants_nothing(scene: Stage, ends: str) -> None:
    begun = await opened(scene)
    scene.issuer.token_delay = 0.5
    finishing = asyncio.create_task(back(scene, begun))
    await until(lambda: scene.issuer.token_requests)
    platform = "sign-in" if ends == "revoke_auth" else ""
    assert (await scene.procedure(ends, {}, platform=platform, cookie=begun["session"]))["success"]
    finished = await finishing
    assert (finished.reply.status, finished.body["page"]) == (500, "token_exchange_failed")
    assert await count(scene, "platform_grant") == 0


async def test_a_grant_is_deleted_here_also_when_our_registration_there_is_gone(scene: Stage) -> None:
    begun = await opened(scene)
    assert (await back(scene, begun))["page"] == "success"
    facts = next(f for f in scene.catalogue if f.id == "sign-in")
    without = msgspec.structs.replace(facts, auth_method="none", has_oauth=False)
    others = [f for f in scene.catalogue if f.id != "sign-in"]
    await scene.change_catalogue(*others, without)
    for replica in scene.replicas:
        async with asyncio.timeout(30):
            while (await replica.platforms.serving("sign-in")).has_oauth:
                await asyncio.sleep(0.005)
    gone = await scene.procedure("revoke_auth", {}, platform="sign-in", cookie=begun["session"])
    assert (gone["success"], gone["token_revoked"]) == (True, False)
    assert await count(scene, "platform_grant") == 0


@pytest.mark.parametrize(
    ("iss", "page"),
    [
        ("https://other.example", "token_exchange_failed"),
        ("{issuer}", "success"),
        ("", "success"),
        ("x", "token_exchange_failed"),
    ],
)
async def test_an_answer_that_names_another_server_is_not_exchanged(scene: Stage, iss: str, page: str) -> None:
    """Mix-up (RFC 9207), also where no document says who the issuer is."""
    begun = await opened(scene)
    finished = await back(scene, begun, iss=iss.format(issuer=scene.issuer.url))
    assert finished.body["page"] == page
    assert len(scene.issuer.token_requests) == (page == "success")


async def test_a_session_that_ended_takes_its_handle_and_cached_grants_along_on_every_replica(scene: Stage) -> None:
    begun = await opened(scene)
    await back(scene, begun)
    started = await scene.procedure("start_auth", {}, platform="sign-in", cookie=begun["session"])
    handle = {"platform": "sign-in", "handle": started["auth_handle"]}
    for _ in range(20):  # both replicas have it in their caches now
        assert (await scene.call(**handle)).status == 200
    await scene.procedure("sign_out", {}, cookie=begun["session"])
    async with asyncio.timeout(20):  # sooner than a cached grant grows old
        refused = 0
        while refused < 20:
            refused = refused + 1 if (await scene.call(**handle)).status == 401 else 0


async def test_what_revocations_remember_of_a_session_ends_when_the_session_would_have_ended(scene: Stage) -> None:
    made = await scene.replicas[0].sessions.create(None)
    await scene.replicas[0].sessions.revoke(made.handle)
    async with scene.replicas[0].database.transaction() as connection:
        query = "SELECT extract(epoch FROM keep_until - now()) FROM auth.revocation WHERE kind = 'session'"
        (kept,) = (await connection.execute(text(query))).scalars().all()
    assert 3600 < float(kept) <= 3600 + 300


class SlowStore:
    """Renewals whose answers the test lets go."""

    def __init__(self) -> None:
        self.token: PlatformToken | None = PlatformToken(access_token="t", expires_at=time.time() + 3000)
        self.reads, self.go = 0, asyncio.Event()

    async def stored(self, key: GrantKey) -> PlatformToken | None:
        found, self.reads = self.token, self.reads + 1
        await self.go.wait()
        return found


async def test_a_grant_read_before_it_was_revoked_is_not_kept_after_it() -> None:
    store, facts = SlowStore(), PlatformFacts(id="p", name="P", type="ehr")
    tokens = PlatformTokens(store)  # type: ignore[arg-type]
    reading = asyncio.create_task(tokens.granted("default", "somebody", facts, None))
    await until(lambda: store.reads == 1)
    store.token = None
    tokens.changed(GrantChanged(principal="somebody", platform="p"))
    store.go.set()
    assert await reading is not None, "this call was there first"
    assert await tokens.granted("default", "somebody", facts, None) is None
    await tokens.close()
