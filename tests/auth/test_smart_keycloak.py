"""Keycloak, an independent provider: people sign in at our SMART client, claims become roles by configuration."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

import aiohttp
import pytest

from auth.fake_issuer import http_fetch
from auth.keycloak_stage import keycloak
from auth.smart_stage import PUBLIC, REDIRECT, SignIn, platform, smart_client
from wardmesh_auth.identify import Roles, principal_of
from wardmesh_auth.settings import PlatformClient
from wardmesh_auth.smart.client import SmartClient
from wardmesh_auth.smart.client_keys import ClientKeys
from wardmesh_common.errors import SignInRequired
from wardmesh_common.issuer_keys import IssuerKeys
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.sign_in_facts import SignInFacts
from wardmesh_common.tokens import KEPT_CLAIMS, TokenVerifier

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(420)]
KEYS = ClientKeys.generate()
AUDIENCE = "https://mesh.example/mcp"
SCOPES = ("openid", "fhirUser", "patient/*.rs")
ROLES = Roles(("realm_access.roles",), {"ward-physician": ("Doctor",), "office": ("Reception",)})


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with keycloak(Path(tmp_path_factory.mktemp("keycloak")), KEYS.jwks()) as url:
        yield url


@pytest.fixture
async def smart() -> AsyncIterator[SmartClient]:
    async with smart_client(KEYS) as client:
        yield client


@pytest.fixture
def facts(issuer: str) -> PlatformFacts:
    return platform("http://127.0.0.1:1/fhir", sign_in=SignInFacts(discovery="oidc", issuer=issuer, aud="none"))


async def sign_in(who: SignIn) -> None:
    """Through Keycloak's own page, as a browser would."""
    url = await who.smart.authorization(
        who.facts,
        who.client,
        redirect_uri=REDIRECT,
        state=who.state,
        verifier=who.verifier,
        nonce=who.nonce,
        scopes=SCOPES,
    )
    # As browsers do on loopback: cookies marked secure are sent there without TLS too.
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
    jar = aiohttp.CookieJar(unsafe=True, treat_as_secure_origin=origin)
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=timeout) as browser:
        async with browser.get(url) as page:
            form = re.search(r'action="([^"]+)"', await page.text())
        assert form is not None
        entered = {"username": "physician", "password": "DemoPass123!"}
        target = urljoin(url, html.unescape(form[1]))
        async with browser.post(target, data=entered, allow_redirects=False) as answer:
            assert answer.status == 302, await answer.text()
            back = answer.headers["Location"]
    who.answer = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
    assert who.answer["state"] == who.state


async def test_a_person_signs_in_and_their_claims_become_roles(
    smart: SmartClient, facts: PlatformFacts, issuer: str
) -> None:
    for client in (PUBLIC, PlatformClient("basic", "a-secret-of-this-test")):
        who = SignIn(smart, facts, client, SCOPES)
        await sign_in(who)
        token = await who.exchange()
        assert "patient/*.rs" in token.scopes
        assert token.fhir_user == "Practitioner/dr-1"
        assert token.issuer == issuer
        async with http_fetch() as fetch:
            keys = IssuerKeys(issuer, fetch)
            kept = tuple({*KEPT_CLAIMS, *ROLES.claims})
            # Keycloak calls its access tokens plain JWT: WARDMESH_TOKEN_TYPES of such a deployment names that as well.
            types = ("at+jwt", "jwt")
            verifier = TokenVerifier(keys, issuer=issuer, audiences=(AUDIENCE,), token_types=types, kept_claims=kept)
            principal = principal_of(await verifier.verify(token.access_token), ROLES)
            await keys.close()
        assert principal.roles == ("Doctor",)
        assert principal.practitioner == "dr-1"
        assert principal.client_id == client.client_id


async def test_a_code_and_a_refresh_token_work_once_there_too(smart: SmartClient, facts: PlatformFacts) -> None:
    who = SignIn(smart, facts, PUBLIC, SCOPES)
    await sign_in(who)
    with pytest.raises(SignInRequired):
        await who.exchange(verifier="v" * 64)
    who = SignIn(smart, facts, PUBLIC, SCOPES)
    await sign_in(who)
    token = await who.exchange()
    with pytest.raises(SignInRequired):
        await who.exchange()
    who = SignIn(smart, facts, PUBLIC, SCOPES)
    await sign_in(who)
    token = await who.exchange()
    fresh = await smart.refresh(facts, PUBLIC, token)
    assert (fresh.subject, fresh.fhir_user) == (token.subject, token.fhir_user)
    with pytest.raises(SignInRequired):
        await smart.refresh(facts, PUBLIC, token)


async def test_revocation_and_a_signed_backend_client(smart: SmartClient, facts: PlatformFacts, issuer: str) -> None:
    secret = PlatformClient("basic", "a-secret-of-this-test")
    who = SignIn(smart, facts, secret, SCOPES)
    await sign_in(who)
    token = await who.exchange()
    assert (await smart.introspect(facts, secret, token.access_token))["active"] is True
    assert await smart.revoke(facts, secret, token)
    assert (await smart.introspect(facts, secret, token.access_token))["active"] is False
    backend = PlatformClient("backend", method="private_key_jwt")
    own = platform("http://127.0.0.1:1/fhir", sign_in=SignInFacts(discovery="oidc", issuer=issuer, alg="ES384"))
    assert "patient/*.rs" in (await smart.backend(own, backend)).scopes
