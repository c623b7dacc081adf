"""Local accounts: log-in, refresh, what their tokens are good for, and how guessing is stopped (SH-9)."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from argon2 import PasswordHasher
from joserfc import jwt
from joserfc.jwk import OctKey

import engines
from auth.stage import Stage, stage
from wardmesh_auth.accounts.passwords import Passwords
from wardmesh_auth.accounts.seed import SeedAccount
from wardmesh_auth.settings import read_settings
from wardmesh_common.errors import Unauthenticated
from wardmesh_common.local_tokens import LocalTokens, LocalUser
from wardmesh_common.settings import BadSettings

pytestmark = pytest.mark.anyio
SECRET = "a secret key of a deployment, 32+ characters"
PASSWORD = "CANARY-correct-horse"
ACCOUNTS = (
    SeedAccount(username="Dana", password=PASSWORD, roles=("Doctor",), email="dana@hospital.example"),
    SeedAccount(username="pat", password=PASSWORD, roles=("patient",), patient="p1"),
)


@pytest.fixture
async def scene(postgres: engines.Postgres, nats: engines.Nats) -> AsyncIterator[Stage]:
    async with stage(postgres.url(), nats.url, secret_key=SECRET, accounts=ACCOUNTS, replicas=2) as ready:
        yield ready


def signed(claims: dict[str, Any], secret: str = SECRET, alg: str = "HS256") -> str:
    return jwt.encode({"alg": alg, "typ": "JWT"}, claims, OctKey.import_key(secret), algorithms=[alg])


async def refused_everywhere(scene: Stage, token: str) -> None:
    """The other replica learns of it by an event, within milliseconds."""
    async with asyncio.timeout(30):
        refusals = 0
        while refusals < 10:
            refusals = refusals + 1 if (await scene.call(bearer=token)).status == 401 else 0


async def log_in(scene: Stage, username: str = "dana", password: str = PASSWORD, **caller: Any) -> Any:
    return await scene.procedure("issue_tokens", {"username": username, "password": password}, **caller)


@pytest.mark.requirement("SH-9")
async def test_a_log_in_gives_an_access_token_for_60_minutes_that_is_a_principal_and_a_refresh_token(
    scene: Stage,
) -> None:
    found = await log_in(scene)
    claims = json.loads(base64.urlsafe_b64decode(found["access"].split(".")[1] + "=="))
    assert {name: claims[name] for name in ("username", "role", "email")} == {
        "username": "dana",
        "role": "Doctor",
        "email": "dana@hospital.example",
    }
    assert claims["user_id"]
    assert 3590 <= claims["exp"] - time.time() <= 3600
    assert (await scene.call(bearer=found["access"])).status == 200
    (call,) = scene.decided
    assert call.principal is not None
    assert call.principal.roles == ("Doctor",)
    again = await scene.procedure("refresh_tokens", {"refresh": found["refresh"]})
    assert (await scene.call(bearer=again["access"])).status == 200
    other = {"user_id": 7, "username": "x", "role": "Nurse", "email": "", "exp": int(time.time()) + 60}
    assert (await scene.call(bearer=signed(other))).status == 200, "a token of a system with the same key"
    for wrong in (
        await log_in(scene, password="wrong"),
        await log_in(scene, username="nobody"),
        await scene.procedure("refresh_tokens", {"refresh": found["access"]}),
        await scene.procedure("refresh_tokens", {"refresh": ""}),
    ):
        assert wrong.reply.status == 401
        assert "CANARY" not in str(wrong.reply)
    assert scene.records.events.count("auth.success") == 1
    assert scene.records.events.count("auth.failure") == 4


async def test_a_log_out_everywhere_ends_every_token_of_the_account(scene: Stage) -> None:
    found = await log_in(scene)
    assert (await scene.procedure("sign_out", {"everywhere": True}, bearer=found["access"]))["success"]
    await refused_everywhere(scene, found["access"])
    assert (await scene.procedure("refresh_tokens", {"refresh": found["refresh"]})).reply.status == 401


async def test_one_access_token_can_be_given_back_while_another_stays(scene: Stage) -> None:
    one, two = (await log_in(scene))["access"], (await log_in(scene))["access"]
    assert (await scene.procedure("sign_out", {}, bearer=one))["success"]
    await refused_everywhere(scene, one)
    assert (await scene.call(bearer=two)).status == 200


async def test_a_browser_may_log_in_with_a_password_and_gets_a_new_session(scene: Stage) -> None:
    given = {"username": "pat", "password": PASSWORD, "next": "/chat/"}
    let_in = await scene.procedure("sign_in", given)
    assert (let_in["location"], len(let_in["session"])) == ("/chat/", 43)
    assert (await scene.call(cookie=let_in["session"])).status == 200
    assert scene.decided[-1].principal is not None
    assert scene.decided[-1].principal.patient == "p1"
    assert (await scene.procedure("sign_in", given | {"next": "//evil.example"})).reply.status == 400


@pytest.mark.parametrize(
    "token",
    [
        signed({"user_id": "u", "exp": int(time.time()) - 1}),
        signed({"user_id": "u"}),
        signed({"exp": int(time.time()) + 60}),
        signed({"user_id": "u", "exp": int(time.time()) + 60, "token_type": "refresh"}),
        signed({"user_id": "u", "exp": int(time.time()) + 60, "iss": "https://other.example"}),
        signed({"user_id": "u", "exp": int(time.time()) + 60, "aud": "https://other.example"}),
        signed({"user_id": "u", "exp": int(time.time()) + 60}, secret="another secret, also of 32 characters"),
        signed({"user_id": "u", "exp": int(time.time()) + 60}, alg="HS512"),
        "eyJhbGciOiJub25lIn0.eyJ1c2VyX2lkIjoidSIsImV4cCI6OTk5OTk5OTk5OX0.",
    ],
)
def test_a_token_that_is_over_foreign_or_of_another_kind_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated):
        LocalTokens(SECRET, "https://mesh.example/mcp").verify(token)


def test_a_short_secret_key_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="32 characters"):
        LocalTokens("short", "a")
    environ = {"ISSUER": "i", "DATABASE_URL": "postgresql://x", "TOKEN_SEAL_KEY": "A" * 43}
    with pytest.raises(BadSettings, match="SECRET_KEY"):
        read_settings({f"WARDMESH_{k}": v for k, v in environ.items()} | {"SECRET_KEY": "SECRET-short"})


async def test_without_a_secret_key_there_are_no_local_accounts(postgres: engines.Postgres, nats: engines.Nats) -> None:
    async with stage(postgres.url(), nats.url, accounts=ACCOUNTS) as scene:
        assert (await log_in(scene)).reply.status == 404
        token = LocalTokens(SECRET, "https://mesh.example/mcp").issue(
            LocalUser(user_id="u", username="u", role="Admin")
        )
        assert (await scene.call(bearer=token)).status == 401


async def test_guessing_is_stopped_for_the_account_whichever_replica_is_asked_and_wherever_from(scene: Stage) -> None:
    for number in range(10):
        refused = await log_in(scene, password=f"guess-{number}", ip=f"203.0.113.{number}")
        assert refused.reply.status == 401
    stopped = await log_in(scene, ip="203.0.113.99")
    assert stopped.reply.problem is not None
    assert (stopped.reply.status, stopped.reply.problem.retry_after > 800) == (429, True)
    assert scene.records.events[-1] == "security.rate_limit"
    assert (await log_in(scene, username="pat", ip="203.0.113.1")).reply.status == 200, "others are not locked out"


async def test_an_unknown_name_costs_as_many_hashes_as_a_known_one() -> None:
    hashed: list[str] = []

    class Counting(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> bool:
            hashed.append(str(hash))
            return super().verify(hash, password)

    passwords = Passwords(Counting(time_cost=1, memory_cost=1024, parallelism=1))
    stored = await passwords.hash("right")
    assert stored.startswith("$argon2id$")
    assert await passwords.matches(stored, "right")
    assert not await passwords.matches(stored, "wrong")
    assert not await passwords.matches(None, "wrong")
    assert len(hashed) == 3
    assert hashed[2].split("$")[:4] == hashed[0].split("$")[:4], "the same parameters for a name that does not exist"
