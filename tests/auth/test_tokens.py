"""TokenVerifier: every good token passes once and cheaply, every other kind of token is refused with one text."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from auth.fake_issuer import AUDIENCE, FakeIssuer, http_fetch, issuer, other_keys
from wardmesh_common.errors import Unauthenticated, Unavailable
from wardmesh_common.issuer_keys import IssuerKeys
from wardmesh_common.tokens import MAX_TOKEN_BYTES, TokenVerifier, principal_id

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def wall(self) -> float:
        return time.time() + self.ahead

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@asynccontextmanager
async def scene(**options: Any) -> AsyncIterator[tuple[FakeIssuer, TokenVerifier, Clock]]:
    clock = Clock()
    async with issuer() as fake, http_fetch() as fetch:
        keys = IssuerKeys(fake.url, fetch, clock=clock.monotonic)
        yield (
            fake,
            TokenVerifier(keys, issuer=fake.url, audiences=(AUDIENCE,), clock=clock.wall, **options),
            clock,
        )
        await keys.close()


def unsigned(fake: FakeIssuer, alg: str, secret: bytes = b"", **header: Any) -> str:
    """A token put together by hand, as an attacker would."""

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = {"iss": fake.url, "aud": AUDIENCE, "sub": "x", "exp": int(time.time()) + 60}
    text = f"{part({'alg': alg, 'typ': 'at+jwt', 'kid': 'rsa-1', **header})}.{part(claims)}"
    mac = hmac.new(secret, text.encode(), hashlib.sha256).digest() if secret else b""
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


async def refused(verifier: TokenVerifier, token: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await verifier.verify(token)
    assert str(caught.value) == "the access token is not valid here"


@pytest.mark.requirement("OA-10")
async def test_a_good_token_yields_who_asks_and_nothing_of_the_token() -> None:
    async with scene() as (fake, verifier, _):
        token = fake.sign(roles=["Doctor"], patient="p1", email="a@b.example", aud=["https://x.example", AUDIENCE])
        verified = await verifier.verify(token)
        assert verified.subject == "demo_doctor"
        assert verified.principal_id == principal_id(fake.url, "demo_doctor")
        assert verified.client_id == "cli"
        assert verified.scopes == ("fhir.read",)
        assert verified.claims == {"roles": ["Doctor"], "patient": "p1"}
        assert token not in repr(verified)
        service = await verifier.verify(fake.sign(sub="cli"))
        assert service.subject == service.client_id == "cli"


@pytest.mark.parametrize("alg", ["ES256", "ES384", "EdDSA", "Ed25519", "PS256", "RS512"])
async def test_every_allowed_algorithm_verifies(alg: str) -> None:
    async with scene() as (fake, verifier, _):
        from joserfc.jws import JWSRegistry

        key = other_keys().get(alg, fake.rsa)
        fake.published = [fake.rsa, key] if key is not fake.rsa else [fake.rsa]
        if alg == "EdDSA":  # the library only signs this name under a deprecation warning
            token = await asyncio.to_thread(_eddsa, fake, key, JWSRegistry)
        else:
            token = fake.sign(key, alg=alg)
        assert (await verifier.verify(token)).subject == "demo_doctor"


def _eddsa(fake: FakeIssuer, key: Any, registry: Any) -> str:
    head, body, _ = fake.sign(key, alg="Ed25519").split(".")
    head = base64.urlsafe_b64encode(b'{"alg":"EdDSA","typ":"at+jwt","kid":"ed-1"}').rstrip(b"=").decode()
    signature = registry.algorithms["EdDSA"].sign(f"{head}.{body}".encode(), key)
    return f"{head}.{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "wrong audience": {"aud": "https://other.example/mcp"},
    "audience is a prefix": {"aud": AUDIENCE[:-1]},
    "no audience": {"aud": None},
    "audience of another shape": {"aud": {"a": AUDIENCE}},
    "wrong issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "expired": {"exp": int(time.time()) - 60},
    "no expiry": {"exp": None},
    "expiry as text": {"exp": "9999999999"},
    "expiry is true": {"exp": True},
    "not yet valid": {"nbf": int(time.time()) + 86_400},
    "not before is text": {"nbf": "0"},
    "issued in the future": {"iat": int(time.time()) + 86_400},
    "issued at is text": {"iat": "0"},
    "no subject": {"sub": None},
    "empty subject": {"sub": ""},
    "subject is a list": {"sub": ["a"]},
    "subject with a line break": {"sub": "a\nb"},
    "subject too long": {"sub": "a" * 300},
}


@pytest.mark.parametrize("claims", BAD_CLAIMS.values(), ids=BAD_CLAIMS.keys())
async def test_a_token_with_a_bad_claim_is_refused(claims: dict[str, Any]) -> None:
    async with scene() as (fake, verifier, _):
        await refused(verifier, fake.sign(**claims))


async def test_an_id_token_or_a_critical_extension_is_refused() -> None:
    async with scene() as (fake, verifier, _):
        for header in ({"typ": "JWT"}, {"typ": None}, {"typ": "secevent+jwt"}, {"crit": ["b64"], "b64": True}):
            await refused(verifier, fake.sign(header=header))
        assert (await verifier.verify(fake.sign(header={"typ": "application/at+jwt"}))).subject


async def test_unsigned_and_symmetric_tokens_are_refused() -> None:
    async with scene() as (fake, verifier, _):
        await verifier.verify(fake.sign())
        public_pem = fake.rsa.as_pem(private=False)
        for token in (
            unsigned(fake, "none"),
            unsigned(fake, "None"),
            unsigned(fake, "HS256", public_pem),
            unsigned(fake, "HS256", public_pem, jwk={"kty": "oct", "k": "AA"}),
            unsigned(fake, "XX256"),
            unsigned(fake, "RS256"),
        ):
            await refused(verifier, token)


async def test_tampered_foreign_and_malformed_tokens_are_refused() -> None:
    async with scene() as (fake, verifier, _):
        good = fake.sign()
        head, body, signature = good.split(".")
        stranger = RSAKey.generate_key(2048, {"kid": "rsa-1"})
        deep = base64.urlsafe_b64encode(b"[" * 300).rstrip(b"=").decode()
        for token in (
            fake.sign(stranger),
            f"{head}.{body}.{signature[:-8]}AAAAAAA{'A' if signature[-1] != 'A' else 'B'}",
            f"{head}.{fake.sign(sub='admin').split('.')[1]}.{signature}",
            "",
            "a.b",
            "a.b.c",
            f"{head}.{body}.{signature}.x.y",
            f"{deep}.{body}.{signature}",
            good + "\u00e4",
            good + "A" * MAX_TOKEN_BYTES,
        ):
            await refused(verifier, token)


@pytest.mark.requirement("OA-9")
async def test_an_unknown_key_id_refreshes_the_keys_once_per_pause() -> None:
    async with scene() as (fake, verifier, clock):
        await verifier.verify(fake.sign())
        clock.ahead += 10
        unknown = [fake.sign(RSAKey.generate_key(2048, {"kid": f"k{n}"})) for n in range(3)]
        before = fake.fetches.count("/jwks")
        for token in unknown * 5:
            await refused(verifier, token)
        assert fake.fetches.count("/jwks") == before + 1
        rotated = RSAKey.generate_key(2048, {"kid": "rsa-2"})
        fake.published = [fake.rsa, rotated]
        clock.ahead += 10
        assert (await verifier.verify(fake.sign(rotated))).subject


@pytest.mark.requirement("OA-9")
async def test_a_withdrawn_key_ends_what_it_signed() -> None:
    async with scene() as (fake, verifier, clock):
        token = fake.sign(exp=int(time.time()) + 36000)
        await verifier.verify(token)
        new = RSAKey.generate_key(2048, {"kid": "rsa-2"})
        fake.published = [new]
        clock.ahead += 10
        await verifier.verify(fake.sign(new))
        clock.ahead += 10
        await refused(verifier, token)


@pytest.mark.requirement("OA-9")
async def test_a_verified_token_is_remembered_but_never_beyond_its_expiry() -> None:
    async with scene(skew_seconds=0) as (fake, verifier, clock):
        token = fake.sign(exp=int(time.time()) + 100)
        first = await verifier.verify(token)
        assert await verifier.verify(token) is first
        clock.ahead += 99
        assert await verifier.verify(token) is first
        clock.ahead += 2
        await refused(verifier, token)


@pytest.mark.requirement("OA-9")
async def test_the_cache_is_bounded_and_can_forget() -> None:
    async with scene(cache_size=5) as (fake, verifier, _):
        tokens = [fake.sign(sub=f"s{n}") for n in range(9)]
        seen = [await verifier.verify(t) for t in tokens]
        assert len(verifier._cache) == 5
        assert await verifier.verify(tokens[-1]) is seen[-1]
        verifier.forget(digest=seen[-1].digest)
        assert await verifier.verify(tokens[-1]) is not seen[-1]
        verifier.forget(subject=seen[-2].principal_id)
        assert await verifier.verify(tokens[-2]) is not seen[-2]


async def test_concurrent_callers_share_one_fetch_and_one_verification() -> None:
    async with scene() as (fake, verifier, _):
        token = fake.sign()
        results = await asyncio.gather(*(verifier.verify(token) for _ in range(20)))
        assert all(r is results[0] for r in results)
        assert fake.fetches.count("/jwks") == 1


async def test_one_caller_that_hangs_up_does_not_spoil_it_for_the_others() -> None:
    async with scene() as (fake, verifier, _):
        first = asyncio.create_task(verifier.verify(fake.sign()))
        second = asyncio.create_task(verifier.verify(fake.sign(sub="b")))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).subject == "b"


async def test_an_unreachable_issuer_is_unavailable_at_first_and_bridged_for_a_while_later() -> None:
    async with scene() as (fake, verifier, clock):
        fake.reachable = False
        with pytest.raises(Unavailable):
            await verifier.verify(fake.sign())
        fake.reachable = True
        clock.ahead += 10
        await verifier.verify(fake.sign())
        fake.reachable = False
        clock.ahead += 1800
        assert (await verifier.verify(fake.sign(sub="later", exp=int(time.time()) + 9000))).subject == "later"
        clock.ahead += 1801
        with pytest.raises(Unavailable):
            await verifier.verify(fake.sign(sub="too late", exp=int(time.time()) + 9000))


async def test_a_start_waits_for_the_first_keys_and_a_failed_attempt_is_soon_repeated() -> None:
    async with issuer() as fake, http_fetch() as fetch:
        keys = IssuerKeys(fake.url, fetch)
        fake.reachable = False
        assert not await keys.first(0.3)
        waiting = asyncio.create_task(keys.first(20))
        fake.reachable = True
        assert await asyncio.wait_for(waiting, 60)
        assert keys.known("rsa-1") is not None
        await keys.close()


async def test_without_keys_a_call_asks_the_issuer_again_well_before_the_pause_of_known_keys() -> None:
    async with scene() as (fake, verifier, clock):
        fake.reachable = False
        with pytest.raises(Unavailable):
            await verifier.verify(fake.sign())
        fake.reachable = True
        clock.ahead += 0.6
        assert (await verifier.verify(fake.sign())).subject


async def test_metadata_is_found_by_either_standard_and_must_name_the_issuer() -> None:
    async with scene() as (fake, verifier, clock):
        fake.metadata_at = {"/.well-known/openid-configuration"}
        fake.named_issuer = "https://somebody-else.example"
        with pytest.raises(Unavailable):
            await verifier.verify(fake.sign())
        fake.named_issuer = ""
        clock.ahead += 10
        assert (await verifier.verify(fake.sign())).subject


@pytest.mark.filterwarnings("ignore:Key size should be")
async def test_keys_that_are_symmetric_short_or_for_encryption_are_left_out() -> None:
    async with scene() as (fake, verifier, _):
        short = RSAKey.generate_key(1024, {"kid": "short"})
        encryption = RSAKey.generate_key(2048, {"kid": "enc", "use": "enc"})
        fake.published = [fake.rsa, short, encryption]
        await refused(verifier, fake.sign(short))
        head = {"kid": "enc"}
        await refused(
            verifier, fake.sign(RSAKey.import_key(encryption.as_dict(private=True) | {"use": "sig"}), header=head)
        )
        assert (await verifier.verify(fake.sign())).subject


def test_a_verifier_without_audience_or_with_a_weak_algorithm_cannot_be_built() -> None:
    keys = IssuerKeys("https://i.example", None)  # type: ignore[arg-type]
    for options in (
        {"audiences": ()},
        {"audiences": ("",)},
        {"issuer": ""},
        {"algorithms": frozenset({"HS256"})},
        {"algorithms": frozenset({"none"})},
        {"algorithms": frozenset()},
        {"skew_seconds": 3600},
    ):
        with pytest.raises(ValueError, match=r"issuer and audience|public key|clock skew"):
            TokenVerifier(keys, **({"issuer": "https://i.example", "audiences": (AUDIENCE,)} | options))
