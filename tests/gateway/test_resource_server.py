"""The gateway as OAuth resource server: which tokens open it, whoever issued them and however (OA-4, OA-11)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from auth.fake_issuer import AUDIENCE, FakeIssuer, http_fetch, issuer
from gateway.mcp_stage import stage
from gateway.rest_stage import Clock
from gateway.test_opaque_tokens import GOOD, Auth
from wardmesh_common.errors import Unauthenticated
from wardmesh_common.issuer_keys import IssuerKeys
from wardmesh_common.tokens import TokenVerifier
from wardmesh_gateway.caller import Callers, TrustedProxies
from wardmesh_gateway.known_sessions import KnownSessions
from wardmesh_gateway.opaque_tokens import BearerTokens, OpaqueTokens

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def scene() -> AsyncIterator[tuple[FakeIssuer, BearerTokens]]:
    clock = Clock()
    async with issuer() as fake, http_fetch() as fetch:
        keys = IssuerKeys(fake.url, fetch)
        signed = TokenVerifier(keys, issuer=fake.url, audiences=(AUDIENCE,))
        yield fake, BearerTokens(signed, OpaqueTokens(Auth(clock), clock))
        await keys.close()


async def holds(tokens: BearerTokens, token: str) -> bool:
    try:
        await tokens.verify(token)
    except Unauthenticated:
        return False
    return True


@pytest.mark.requirement("OA-4")
async def test_a_token_opens_the_gateway_only_with_type_issuer_audience_time_and_algorithm_all_right() -> None:
    now = int(time.time())
    async with scene() as (fake, tokens):
        assert await holds(tokens, fake.sign())
        assert await holds(tokens, fake.sign(aud=["https://x.example", AUDIENCE]))
        # Clocks may differ by a bounded time.
        assert await holds(tokens, fake.sign(exp=now - 5))
        assert await holds(tokens, GOOD)
        wrong: list[dict[str, Any]] = [
            {"header": {"typ": "JWT"}},
            {"header": {"typ": None}},
            {"iss": "https://evil.example"},
            {"aud": f"{AUDIENCE}/gateway"},
            {"aud": AUDIENCE.removesuffix("/mcp")},
            {"exp": now - 120},
            {"nbf": now + 600},
        ]
        for claims in wrong:
            assert not await holds(tokens, fake.sign(**claims)), claims
        assert not await holds(tokens, "opaque-unknown")


@pytest.mark.requirement("B-9")
async def test_a_token_for_elsewhere_is_refused_with_a_challenge_that_leads_to_the_right_issuer() -> None:
    """Another audience, another issuer, another resource of the same house: one answer, and the way out in it."""
    async with scene() as (fake, tokens):
        callers = Callers(tokens, TrustedProxies(()), KnownSessions())
        async with stage(verifier=callers, issuer=fake.url, audience=AUDIENCE) as s:
            bare = await s.client.get("/mcp")
            foreign = (
                fake.sign(aud="https://elsewhere.example/mcp"),
                fake.sign(iss="https://evil.example"),
                fake.sign(aud=f"{AUDIENCE}/another"),
                fake.sign(aud=[f"{AUDIENCE}x", "https://elsewhere.example"]),
            )
            for token in foreign:
                for answer in (await s.modern("tools/list", token=token), await s.legacy("ping", token=token)):
                    assert answer.status_code == 401
                    challenge = answer.headers["www-authenticate"]
                    assert challenge.startswith("Bearer ")
                    assert 'error="invalid_token"' in challenge
                    assert (
                        'resource_metadata="http://gateway.test/.well-known/oauth-protected-resource/mcp"' in challenge
                    )
                    assert token not in answer.text
            assert "error=" not in bare.headers["www-authenticate"]
            metadata = (await s.client.get("/.well-known/oauth-protected-resource/mcp")).json()
            assert metadata["authorization_servers"] == [fake.url]
            assert metadata["resource"] == AUDIENCE
            assert (await s.modern("tools/list", token=fake.sign(scope="fhir.read"))).status_code == 200
    assert s.door.calls == []


@pytest.mark.requirement("OA-11")
async def test_only_what_the_issuer_made_of_an_enterprise_assertion_opens_the_gateway() -> None:
    """The exchange happens at the authorization server; the assertion itself is worth nothing here."""
    async with scene() as (fake, tokens):
        assertion = fake.sign(
            header={"typ": "oauth-id-jag+jwt"}, resource=AUDIENCE, email="a@b.example", jti="j", client_id="cli"
        )
        assert not await holds(tokens, assertion)
        exchanged = await tokens.verify(fake.sign(act={"sub": "cli"}, client_id="cli"))
        assert (exchanged.subject, exchanged.client_id) == ("demo_doctor", "cli")
