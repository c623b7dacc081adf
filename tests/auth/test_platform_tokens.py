"""Platform tokens: obtained once for all replicas, renewed ahead of time, sealed at rest."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

import engines
from auth.stage import CLIENT, SEAL_KEY, Stage, stage
from wardmesh_auth.grant_store import GrantKey, GrantStore
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.platform_tokens import PlatformTokens
from wardmesh_auth.renewals import Renewals
from wardmesh_auth.settings import AuthSettings, PlatformClient, master_ring, read_settings
from wardmesh_auth.vault import Vault
from wardmesh_common.errors import Internal, PlatformDown, PlatformUnconfigured, Unavailable, WardmeshError
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.settings import BadSettings

pytestmark = pytest.mark.anyio
TOKEN = {"access_token": "t1", "token_type": "bearer", "expires_in": 3600, "scope": "system/*.rs"}
OURS = PlatformClient("our-client", "CANARY-CLIENT-SECRET")


@pytest.fixture
async def trio(postgres: engines.Postgres, nats: engines.Nats) -> AsyncIterator[Stage]:
    async with stage(postgres.url(), nats.url, replicas=3) as ready:
        ready.issuer.token_answer = TOKEN
        yield ready


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Exchange:
    """Counts and gives numbered tokens, or fails."""

    def __init__(self, clock: Clock, life: float = 3600.0) -> None:
        self.clock, self.life, self.count = clock, life, 0
        self.failure: Exception | None = None

    async def backend(self, facts: PlatformFacts, client: PlatformClient) -> PlatformToken:
        self.count += 1
        await asyncio.sleep(0)
        if self.failure:
            raise self.failure
        now = self.clock()
        return PlatformToken(access_token=f"t{self.count}", issued_at=now, expires_at=now + self.life)

    async def due(self, key: GrantKey, facts: PlatformFacts, client: PlatformClient) -> PlatformToken:
        return await self.backend(facts, client)


async def unnoted(key: GrantKey, failure: WardmeshError | None) -> None:
    pass


SIGN_IN = PlatformFacts(id="sign-in", name="S", type="ehr", auth_method="authorization_code")
FACTS = PlatformFacts(id="payer", name="P", type="payer", auth_method="client_credentials")


def facts_of(scene: Stage) -> PlatformFacts:
    return next(f for f in scene.catalogue if f.id == "payer")


async def test_three_replicas_and_many_callers_cause_one_exchange(trio: Stage) -> None:
    trio.issuer.token_delay = 0.2
    found = await asyncio.gather(*(r.tokens.deployment(facts_of(trio), OURS) for r in trio.replicas for _ in range(30)))
    assert {t.access_token for t in found} == {"t1"}
    assert len(trio.issuer.token_requests) == 1


@pytest.mark.requirement("X-16")
async def test_a_token_is_renewed_ahead_of_its_end_and_its_failure_is_no_old_token() -> None:
    clock = Clock()
    exchange = Exchange(clock)
    tokens = PlatformTokens(exchange, clock=clock)
    assert (await tokens.deployment(FACTS, OURS)).access_token == "t1"
    clock.ahead = 3600 - 100  # early: the old token serves while the new one is fetched on the side
    assert (await tokens.deployment(FACTS, OURS)).access_token == "t1"
    async with asyncio.timeout(30):
        while (await tokens.deployment(FACTS, OURS)).access_token != "t2":
            await asyncio.sleep(0)
    clock.ahead += 3600 - 50  # inside the margin: wait for the new one
    assert (await tokens.deployment(FACTS, OURS)).access_token == "t3"
    clock.ahead += 3600 - 50
    exchange.failure = PlatformDown("away")
    for _ in range(5):
        with pytest.raises(PlatformDown):
            await tokens.deployment(FACTS, OURS)
    assert exchange.count == 4, "a failure is not repeated by every caller"
    exchange.failure = None
    clock.ahead += 5
    assert (await tokens.deployment(FACTS, OURS)).access_token == "t5"
    await tokens.close()


async def test_a_caller_that_hangs_up_does_not_end_the_renewal_for_the_others() -> None:
    clock = Clock()
    tokens = PlatformTokens(Exchange(clock), clock=clock)
    first = asyncio.create_task(tokens.deployment(FACTS, OURS))
    second = asyncio.create_task(tokens.deployment(FACTS, OURS))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).access_token == "t1"


async def test_a_replica_that_starts_later_uses_the_stored_token(trio: Stage) -> None:
    await trio.replicas[0].tokens.deployment(facts_of(trio), OURS)
    clock = Clock()
    exchange = Exchange(clock)
    later = PlatformTokens(Renewals(trio.replicas[0].store, exchange, unnoted, clock), clock=clock)
    assert (await later.deployment(facts_of(trio), OURS)).access_token == "t1"
    assert exchange.count == 0
    clock.ahead = 3500
    assert (await later.deployment(facts_of(trio), OURS)).access_token == "t1"


async def test_a_replica_that_dies_while_it_renews_leaves_no_lock_behind(trio: Stage) -> None:
    store = trio.replicas[0].store
    key = GrantKey("default", "", "payer")
    held, lost = asyncio.Event(), asyncio.Event()

    async def dying() -> None:
        async with store.exclusively(key) as connection:
            held.set()
            await lost.wait()
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    holder = asyncio.create_task(dying())
    await held.wait()
    waiting = asyncio.create_task(trio.replicas[1].tokens.deployment(facts_of(trio), OURS))
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    assert trio.issuer.token_requests == [], "who does not hold the lock waits"
    lost.set()
    assert (await asyncio.wait_for(waiting, 60)).access_token == "t1"
    with pytest.raises(Unavailable):
        await holder


async def test_refusals_and_troubles_of_the_token_endpoint_are_told_apart(trio: Stage) -> None:
    bearer = trio.issuer.sign()
    trio.issuer.token_status = 401
    reply = await trio.call(platform="payer", bearer=bearer)
    assert reply.problem is not None
    assert (reply.status, reply.problem.code) == (503, "platform_not_configured")
    assert "CANARY" not in str(reply)
    exchange = trio.replicas[0].smart
    for url, error in (
        (f"{trio.issuer.url}/nothing-here", PlatformUnconfigured),
        ("http://127.0.0.1:1/token", PlatformDown),
        ("http://payer.example/token", PlatformUnconfigured),  # a secret never travels without TLS
        ("", PlatformUnconfigured),
    ):
        facts = PlatformFacts(id="x", name="X", type="payer", auth_method="client_credentials", token_url=url)
        with pytest.raises(error):
            await exchange.backend(facts, OURS)
    trio.issuer.token_status, trio.issuer.reachable = 200, False
    with pytest.raises(PlatformDown):
        await exchange.backend(facts_of(trio), OURS)
    with pytest.raises(PlatformUnconfigured):
        await exchange.backend(facts_of(trio), PlatformClient("only-an-id"))


async def test_without_a_database_each_replica_asks_for_itself(nats: engines.Nats) -> None:
    with engines.postgres("auth") as database:
        async with stage(database.url(), nats.url) as scene:
            scene.issuer.token_answer = TOKEN
            database.kill()
            assert (await scene.call(platform="payer", bearer=scene.issuer.sign())).status == 200
            assert len(scene.issuer.token_requests) == 1


@pytest.mark.requirement("FG-16")
async def test_what_was_stored_before_a_master_key_was_set_is_still_read_and_never_in_the_clear(
    postgres: engines.Postgres, nats: engines.Nats
) -> None:
    async with stage(postgres.url(), nats.url, master_key="") as scene:
        scene.issuer.token_answer = TOKEN
        assert (await scene.call(platform="payer", bearer=scene.issuer.sign())).status == 200
        async with scene.replicas[0].database.transaction() as connection:
            (sealed,) = (await connection.execute(text("SELECT sealed FROM auth.platform_grant"))).scalars()
            assert b"t1" not in bytes(sealed)
        options = {
            "database_url": "postgresql://x",
            "token_seal_key": base64.urlsafe_b64encode(SEAL_KEY).decode(),
            "issuer": "i",
        }
        ring = master_ring(AuthSettings(**options, master_key="a passphrase of more than 32 characters"))
        later = GrantStore(scene.replicas[0].database, Vault(ring))
        stored = await later.load(GrantKey("default", "", "payer"))
        assert stored is not None
        assert stored.access_token == "t1"
    with pytest.raises(BadSettings):
        read_settings({f"WARDMESH_{k.upper()}": v for k, v in options.items()} | {"FHIR_GATEWAY_MASTER_KEY": "x" * 31})


@pytest.mark.parametrize("prefix", ["WARDMESH_", "FHIR_GATEWAY_"])
async def test_credentials_are_read_with_either_prefix(
    postgres: engines.Postgres, nats: engines.Nats, prefix: str
) -> None:
    environ = {k.replace("WARDMESH_", prefix): v for k, v in CLIENT.items() if "PAYER" in k}
    async with stage(postgres.url(), nats.url, environ=environ) as scene:
        scene.issuer.token_answer = TOKEN
        assert (await scene.call(platform="payer", bearer=scene.issuer.sign())).status == 200


async def test_a_grant_is_found_by_its_own_principal_and_platform_only(trio: Stage) -> None:
    store = trio.replicas[0].store
    now = time.time()
    mine = GrantKey("default", "i:me", "sign-in")
    token = PlatformToken(access_token="mine", scopes=("patient/*.rs",), issued_at=now, expires_at=now + 900)
    async with store.exclusively(mine) as connection:
        await store.write(connection, mine, token)
    tokens = trio.replicas[1].tokens
    assert await tokens.granted("default", "i:me", SIGN_IN, None) == token
    epic = PlatformFacts(id="epic", name="E", type="ehr")
    for other in (("default", "i:you", SIGN_IN), ("default", "i:me", epic), ("b", "i:me", SIGN_IN)):
        assert await tokens.granted(*other, None) is None
    async with store.exclusively(mine) as connection:
        await store.forget(connection, mine)
    tokens.forget("i:me")
    assert await tokens.granted("default", "i:me", SIGN_IN, None) is None


async def test_a_row_that_is_copied_to_another_principal_does_not_open(trio: Stage) -> None:
    store = trio.replicas[0].store
    now = time.time()
    mine, yours = GrantKey("default", "i:me", "epic"), GrantKey("default", "i:you", "epic")
    token = PlatformToken(access_token="mine", issued_at=now, expires_at=now + 900)
    async with store.exclusively(mine) as connection:
        await store.write(connection, mine, token)
        await store.write(connection, yours, token)
        await connection.execute(
            text(
                "UPDATE auth.platform_grant t SET sealed = s.sealed, wrapped_key = s.wrapped_key "
                "FROM auth.platform_grant s WHERE s.principal_id = 'i:me' AND t.principal_id = 'i:you'"
            )
        )
    assert await store.load(mine) == token
    with pytest.raises(Internal):
        await store.load(yours)


async def test_a_master_key_is_rotated_by_putting_a_new_one_first(trio: Stage) -> None:
    database = trio.replicas[0].database
    old, new = os.urandom(32), os.urandom(32)
    key = GrantKey("default", "i:me", "epic")
    token = PlatformToken(access_token="mine", issued_at=1, expires_at=2)
    before, during, after = (GrantStore(database, Vault(ring)) for ring in ((old,), (new, old), (new,)))
    async with before.exclusively(key) as connection:
        await before.write(connection, key, token)
    assert await during.load(key) == token
    with pytest.raises(Internal):
        await after.load(key)
    async with during.exclusively(key) as connection:
        await during.write(connection, key, token)
    assert await after.load(key) == token
