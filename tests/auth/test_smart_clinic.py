"""Sign-in at a SMART 1 server: discovery from metadata, opaque tokens, and identity tokens bent in every way."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from joserfc.jwk import OctKey, RSAKey

from auth.smart_clinic import CLIENT, SECRET, Clinic
from auth.smart_person import OURS, SCOPES, person
from auth.smart_stage import platform, smart_client
from wardmesh_auth.smart.client import SmartClient
from wardmesh_common.errors import BadUpstream, SignInRequired

pytestmark = pytest.mark.anyio


async def test_a_person_signs_in_by_what_the_metadata_say(smart: SmartClient, server: Clinic) -> None:
    token = await person(smart, server).complete()
    assert server.requests[:2] == ["/v/r4/fhir/.well-known/smart-configuration", "/v/r4/fhir/metadata"]
    assert (token.patient, token.fhir_user, token.subject) == ("p7", "Practitioner/dr-7", "someone")
    assert token.scopes == SCOPES
    assert token.expires_at - token.issued_at == 300
    assert "launcher+secret" in base64.b64decode(server.forms[0]["authorization"].split()[1]).decode()
    assert "client_secret" not in server.forms[0]


async def test_a_refresh_token_that_stays_the_same_stays(smart: SmartClient, server: Clinic) -> None:
    who = person(smart, server)
    first = await who.complete()
    for _ in range(2):
        second = await smart.refresh(who.facts, OURS, first)
        assert second.refresh_token == first.refresh_token
        assert second.access_token != first.access_token
        assert (second.fhir_user, second.patient) == ("Practitioner/dr-7", "p7")


async def test_an_expired_code_a_second_use_and_a_wrong_verifier_give_nothing(
    smart: SmartClient, server: Clinic
) -> None:
    late = person(smart, server)
    await late.browse()
    server.ahead = 61
    with pytest.raises(SignInRequired):
        await late.exchange()
    server.ahead = 0
    twice = person(smart, server)
    await twice.complete()
    with pytest.raises(SignInRequired):
        await twice.exchange()
    wrong = person(smart, server)
    await wrong.browse()
    with pytest.raises(SignInRequired):
        await wrong.exchange(verifier="v" * 64)


async def test_revocation_reaches_this_server_too_and_its_silence_is_no_error(
    smart: SmartClient, server: Clinic
) -> None:
    who = person(smart, server)
    token = await who.complete()
    assert (await smart.introspect(who.facts, OURS, token.access_token))["active"] is True
    server.ahead = 301
    assert (await smart.introspect(who.facts, OURS, token.access_token))["active"] is False, "expired"
    server.status = {"revoke": 503}
    assert not await smart.revoke(who.facts, OURS, token)
    server.status, server.ahead = {}, 0
    assert await smart.revoke(who.facts, OURS, token)
    assert (await smart.introspect(who.facts, OURS, token.access_token))["active"] is False
    with pytest.raises(SignInRequired):
        await smart.refresh(who.facts, OURS, token)
    assert not await smart.revoke(
        platform("", token_url=f"{server.url}/t", authorize_url=f"{server.url}/a"), OURS, token
    )


BENT: dict[str, dict[str, Any]] = {
    "another issuer": {"claims": {"iss": "https://evil.example"}},
    "an issuer beside ours": {"claims": {"iss": "http://127.0.0.1:9/v/r4/fhir"}},
    "no issuer": {"claims": {"iss": None}},
    "another audience": {"claims": {"aud": "somebody-else"}},
    "no audience": {"claims": {"aud": None}},
    "shared with another party": {"claims": {"aud": [CLIENT, "other"], "azp": "other"}},
    "expired": {"claims": {"exp": int(time.time()) - 120}},
    "without an end": {"claims": {"exp": None}},
    "an end that is no number": {"claims": {"exp": "soon"}},
    "from the future": {"claims": {"iat": int(time.time()) + 3600}},
    "another nonce": {"claims": {"nonce": "n"}},
    "no nonce": {"claims": {"nonce": None}},
    "no subject": {"claims": {"sub": None}},
    "an unknown key": {"header": {"kid": "clinic-2"}},
    "another key under the same name": {"signing": RSAKey.generate_key(2048)},
    "a shared secret": {"signing": OctKey.import_key(SECRET * 3), "header": {"alg": "HS256"}},
    "a critical header": {"header": {"crit": ["b64"], "b64": True}},
    "not a token": {"raw_id_token": "a.b"},
}


def unsigned() -> str:
    def part(members: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(members).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part({'iss': 'x', 'aud': CLIENT, 'sub': 's', 'exp': 9e9})}."


@pytest.mark.requirement("X-8")
@pytest.mark.parametrize("kind", [*BENT, "unsigned"])
async def test_an_identity_token_that_proves_nothing_ends_the_sign_in(
    smart: SmartClient, server: Clinic, kind: str
) -> None:
    for name, value in (BENT.get(kind) or {"raw_id_token": unsigned()}).items():
        setattr(server, name, value)
    with pytest.raises(BadUpstream) as caught:
        await person(smart, server).complete()
    assert caught.value.problem.detail == "the identity token of the platform cannot be verified"


async def test_what_a_platform_does_with_identity_tokens_is_data(smart: SmartClient, server: Clinic) -> None:
    server.claims = {"nonce": None}
    assert (await person(smart, server, id_token="no-nonce").complete()).subject == "someone"
    server.raw_id_token = "junk"
    token = await person(smart, server, id_token="unused").complete()
    assert (token.subject, token.fhir_user, token.patient) == ("", "", "p7")
    server.token_extra = {"id_token": None}
    assert (await person(smart, server).complete()).fhir_user == "", "no identity token, no identity"


async def test_a_platform_that_replaces_its_keys_is_believed_with_the_new_ones_only(
    smart: SmartClient, server: Clinic
) -> None:
    assert (await person(smart, server).complete()).subject == "someone"
    old, server.key = server.key, RSAKey.generate_key(2048, {"kid": "clinic-2", "use": "sig"})
    server.header = {"kid": "clinic-2"}
    async with smart_client() as later:
        assert (await person(later, server).complete()).subject == "someone"
        server.signing, server.header = old, {"kid": "clinic-1"}
        with pytest.raises(BadUpstream):
            await person(later, server).complete()


async def test_a_refresh_that_answers_for_another_person_is_refused(smart: SmartClient, server: Clinic) -> None:
    who = person(smart, server)
    token = await who.complete()
    server.claims = {"sub": "somebody-else"}
    server.token_extra = {"id_token": server._identity({})}
    with pytest.raises(BadUpstream, match="another person"):
        await smart.refresh(who.facts, OURS, token)
