"""Sign-in at a certified, strict server: every kind of client, and every trick that a strict server must refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import msgspec
import pytest

from auth.smart_stage import BASIC, PUBLIC, SignIn, follow, platform, smart_client, strict_server
from wardmesh_auth.settings import PlatformClient
from wardmesh_auth.smart.client import SmartClient
from wardmesh_auth.smart.client_keys import ClientKeys
from wardmesh_auth.smart.one_time import new_nonce, new_state, new_verifier
from wardmesh_common.errors import BadRequest, PlatformUnconfigured, SignInRequired
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.sign_in_facts import SignInFacts

pytestmark = pytest.mark.anyio
KEYS = ClientKeys.generate()


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with strict_server(KEYS) as url:
        yield url


@pytest.fixture
async def smart() -> AsyncIterator[SmartClient]:
    async with smart_client(KEYS) as client:
        yield client


@pytest.fixture
def facts(issuer: str) -> PlatformFacts:
    return platform(f"{issuer}/fhir")


def quirks(facts: PlatformFacts, **fields: Any) -> PlatformFacts:
    return msgspec.structs.replace(facts, sign_in=SignInFacts(**fields))


CLIENTS = {
    "public": (PUBLIC, {}),
    "client_secret_basic": (BASIC, {}),
    "client_secret_post": (PlatformClient("post", "another-secret-of-this-test", "", "client_secret_post"), {}),
    "RS384": (PlatformClient("rsa", method="private_key_jwt"), {"alg": "RS384"}),
    "ES384": (PlatformClient("ec", method="private_key_jwt"), {"alg": "ES384"}),
}


@pytest.mark.parametrize("kind", CLIENTS)
async def test_every_kind_of_client_signs_a_person_in(smart: SmartClient, facts: PlatformFacts, kind: str) -> None:
    client, special = CLIENTS[kind]
    token = await SignIn(smart, quirks(facts, **special), client).complete()
    assert "patient/*.rs" in token.scopes
    assert (token.patient, token.encounter, token.need_patient_banner) == ("p1", "e1", False)
    assert [(c.reference, c.role) for c in token.fhir_context] == [
        ("ImagingStudy/i1", "https://example.org/roles#imaging"),
        ("DiagnosticReport/d1", ""),
    ]
    assert token.fhir_user == f"{facts.fhir_base_url}/Patient/p1"
    assert token.subject == "person-1"
    assert 590 < token.expires_at - token.issued_at <= 600
    assert token.refresh_token


async def test_the_address_that_a_person_is_sent_to_holds_all_that_smart_asks_for(
    smart: SmartClient, facts: PlatformFacts
) -> None:
    state, verifier = new_state(), new_verifier()
    secret = PlatformClient("basic", "CANARY-SECRET")
    url = await smart.authorization(
        facts, secret, redirect_uri="https://us/cb", state=state, verifier=verifier, nonce=new_nonce()
    )
    asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert asked["response_type"] == "code"
    assert asked["client_id"] == "basic"
    assert asked["redirect_uri"] == "https://us/cb"
    assert asked["scope"] == "openid fhirUser patient/*.cruds"  # the default, in the v2 that this server announces
    assert asked["state"] == state
    assert len(state) == 48
    assert set(state) <= set("0123456789abcdef")
    assert asked["aud"] == facts.fhir_base_url
    assert asked["code_challenge_method"] == "S256"
    assert len(verifier) == 64
    assert len(asked["code_challenge"]) == 43
    assert "CANARY" not in url
    assert verifier not in url


async def test_a_code_works_once_and_its_second_use_ends_what_the_first_one_gave(
    smart: SmartClient, facts: PlatformFacts
) -> None:
    person = SignIn(smart, facts)
    token = await person.complete()
    with pytest.raises(SignInRequired):
        await person.exchange()
    with pytest.raises(SignInRequired):
        await smart.refresh(facts, PUBLIC, token)


@pytest.mark.parametrize(
    "bent",
    [
        {"verifier": new_verifier()},
        {"code": "c" * 43},
        {"redirect_uri": "http://127.0.0.1:1/other"},
    ],
    ids=["verifier", "code", "redirect"],
)
async def test_a_wrong_verifier_code_or_redirect_gives_nothing(
    smart: SmartClient, facts: PlatformFacts, bent: dict[str, str]
) -> None:
    person = SignIn(smart, facts)
    await person.browse()
    with pytest.raises(SignInRequired):
        await person.exchange(**bent)


async def test_a_code_of_one_client_is_worth_nothing_to_another(smart: SmartClient, facts: PlatformFacts) -> None:
    person = SignIn(smart, facts)
    await person.browse()
    person.client = BASIC
    with pytest.raises(SignInRequired):
        await person.exchange()


async def test_a_request_for_another_fhir_server_is_refused(smart: SmartClient, facts: PlatformFacts) -> None:
    found = await SignIn(smart, quirks(facts, aud="https://elsewhere.example/fhir")).browse()
    assert found["error"] == "invalid_request"
    assert "code" not in found


@pytest.mark.parametrize("iss", ["https://mixed-up.example", ""])
async def test_an_answer_of_another_server_is_not_redeemed(smart: SmartClient, facts: PlatformFacts, iss: str) -> None:
    person = SignIn(smart, facts)
    await person.browse()
    with pytest.raises(SignInRequired, match="another server"):
        await person.exchange(iss=iss)
    assert (await person.exchange()).access_token, "the code was not spent"


async def test_an_ehr_launch_names_its_launch_and_only_our_fhir_server(
    smart: SmartClient, facts: PlatformFacts
) -> None:
    person = SignIn(smart, facts)
    with pytest.raises(BadRequest):
        await person.browse(launch="launch-1", iss="https://evil.example/fhir")
    assert (await person.browse(launch="launch-0", iss=facts.fhir_base_url))["error"] == "invalid_request"
    await person.browse(launch="launch-1", iss=f"{facts.fhir_base_url}/")
    assert (await person.exchange()).encounter == "e1"


async def test_refreshing_keeps_the_launch_context_and_using_a_spent_refresh_token_ends_the_grant(
    smart: SmartClient, facts: PlatformFacts
) -> None:
    first = await SignIn(smart, facts).complete()
    second = await smart.refresh(facts, PUBLIC, first)
    assert second.access_token != first.access_token
    assert second.refresh_token != first.refresh_token
    assert (second.patient, second.fhir_user, second.subject) == (first.patient, first.fhir_user, first.subject)
    assert set(second.scopes) == set(first.scopes)
    with pytest.raises(SignInRequired):
        await smart.refresh(facts, PUBLIC, first)
    with pytest.raises(SignInRequired):
        await smart.refresh(facts, PUBLIC, second)


async def test_revocation_ends_the_grant_and_introspection_says_so(smart: SmartClient, facts: PlatformFacts) -> None:
    client, special = CLIENTS["ES384"]
    clinic = quirks(facts, **special)
    token = await SignIn(smart, clinic, client).complete()
    held = await smart.introspect(clinic, client, token.refresh_token)
    assert (held["active"], held["client_id"]) == (True, "ec")
    assert await smart.revoke(clinic, client, token)
    assert (await smart.introspect(clinic, client, token.refresh_token))["active"] is False
    with pytest.raises(SignInRequired):
        await smart.refresh(clinic, client, token)


BACKENDS = {
    "secret": (PlatformClient("backend", "a-third-secret-of-this-test"), ""),
    "RS384": (PlatformClient("backend-rsa", method="private_key_jwt"), "RS384"),
    "ES384": (PlatformClient("backend-ec", method="private_key_jwt"), "ES384"),
}


@pytest.mark.parametrize("kind", BACKENDS)
async def test_a_backend_service_gets_its_own_token(smart: SmartClient, facts: PlatformFacts, kind: str) -> None:
    client, alg = BACKENDS[kind]
    clinic = msgspec.structs.replace(quirks(facts, alg=alg), auth_method="client_credentials")
    token = await smart.backend(clinic, client, ("system/*.rs",))
    assert token.scopes == ("system/*.rs",)
    assert (token.refresh_token, token.patient) == ("", "")


@pytest.mark.parametrize("kind", ["foreign key", "wrong secret", "unknown client"])
async def test_a_client_that_cannot_prove_itself_gets_nothing(
    smart: SmartClient, facts: PlatformFacts, kind: str
) -> None:
    strange = ClientKeys.generate().dump()
    client = {
        "foreign key": PlatformClient("backend-ec", private_key=strange),
        "wrong secret": PlatformClient("backend", "guessed"),
        "unknown client": PlatformClient("nobody", "secret"),
    }[kind]
    with pytest.raises(PlatformUnconfigured, match="does not accept"):
        await smart.backend(msgspec.structs.replace(facts, auth_method="client_credentials"), client, ("system/*.rs",))


async def post_assertion(issuer: str, assertion: str) -> tuple[int, str]:
    form = {
        "grant_type": "client_credentials",
        "scope": "system/*.rs",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": assertion,
    }
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(timeout=timeout) as http, http.post(f"{issuer}/token", data=form) as response:
        return response.status, str((await response.json()).get("error", ""))


@pytest.mark.parametrize("alg", ["RS384", "ES384"])
async def test_an_assertion_works_once_for_its_audience_and_only_while_it_lasts(issuer: str, alg: str) -> None:
    client = "backend-rsa" if alg == "RS384" else "backend-ec"
    good = KEYS.assertion(client, f"{issuer}/token", alg)
    assert (await post_assertion(issuer, good))[0] == 200
    assert await post_assertion(issuer, good) == (401, "invalid_client"), "the same jti a second time"
    elsewhere = KEYS.assertion(client, "https://elsewhere.example/token", alg)
    assert await post_assertion(issuer, elsewhere) == (401, "invalid_client")
    past = ClientKeys.parse(KEYS.dump(), clock=lambda: 1_700_000_000.0)
    assert await post_assertion(issuer, past.assertion(client, f"{issuer}/token", alg)) == (401, "invalid_client")


async def test_scopes_that_the_server_does_not_know_come_back_as_an_error(
    smart: SmartClient, facts: PlatformFacts
) -> None:
    person = SignIn(smart, facts, scopes=("openid", "patient/Claim.rs"))
    found = await person.browse()
    granted = set() if "error" in found else set((await person.exchange()).scopes)
    assert "patient/Claim.rs" not in granted


async def test_two_people_on_one_client_never_get_each_others_identity(
    smart: SmartClient, facts: PlatformFacts
) -> None:
    for name in ("person-a", "person-b"):
        own = quirks(facts, authorize_params=(("login_hint", name),))
        assert (await SignIn(smart, own).complete()).subject == name


async def test_without_a_challenge_this_server_gives_no_code(smart: SmartClient, facts: PlatformFacts) -> None:
    """The server is as strict as we rely on: a request stripped of its challenge is refused."""
    url = await smart.authorization(
        facts, PUBLIC, redirect_uri="http://127.0.0.1:1/callback", state="s", verifier=new_verifier(), nonce="n"
    )
    stripped = "&".join(part for part in url.split("&") if "code_challenge" not in part)
    assert (await follow(stripped, "http://127.0.0.1:1/callback"))["error"] == "invalid_request"
