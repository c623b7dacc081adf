"""What token endpoints say: odd answers, trouble, quirks; nothing of it harms us or is told on."""

from __future__ import annotations

import base64
import logging
import time
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auth.smart_clinic import CLIENT, SECRET, Clinic
from auth.smart_person import OURS, SCOPES, person
from auth.smart_stage import REDIRECT, platform
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.settings import PlatformClient
from wardmesh_auth.smart.client import SmartClient
from wardmesh_auth.smart.token_answer import read_answer
from wardmesh_common.errors import PlatformDown, PlatformUnconfigured, SignInRequired, WardmeshError
from wardmesh_common.sign_in_facts import SignInFacts

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("extra", "good"),
    [
        ({"access_token": None}, False),
        ({"access_token": 7}, False),
        ({"access_token": "t\r\nX: y"}, False),
        ({"access_token": "t" * 70_000}, False),
        ({"token_type": "mac"}, False),
        ({"token_type": None}, True),
        ({"expires_in": None}, True),
        ({"expires_in": "NaN"}, True),
        ({"expires_in": -5}, True),
        ({"patient": "../../x"}, True),
        ({"patient": "Claim/p8"}, True),
        ({"fhirContext": "junk"}, True),
        ({"scope": ["patient/*.read", 7]}, True),
    ],
)
async def test_an_odd_token_answer_is_refused_or_read_without_harm(
    smart: SmartClient, server: Clinic, extra: dict[str, Any], good: bool
) -> None:
    server.token_extra = extra
    if not good:
        with pytest.raises(PlatformUnconfigured):
            await person(smart, server).complete()
        return
    token = await person(smart, server).complete()
    assert 0 <= token.expires_at - token.issued_at <= 300
    assert token.patient in ("p7", "")


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, PlatformDown), (503, PlatformDown), (429, PlatformDown), (404, PlatformUnconfigured), (302, WardmeshError)],
)
async def test_a_token_endpoint_in_trouble_gives_a_plain_refusal(
    smart: SmartClient, server: Clinic, status: int, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    who = person(smart, server)
    await who.browse()
    server.status = {"token": status}
    server.location = f"{server.url}/elsewhere"
    with pytest.raises(error) as caught:
        await who.exchange()
    assert isinstance(caught.value, WardmeshError)
    assert "127.0.0.1" not in caught.value.problem.detail
    assert "/elsewhere" not in server.requests, "a secret follows no redirect"
    told = caplog.text + caught.value.problem.detail
    for secret in (who.verifier, who.answer["code"], SECRET, who.nonce, "CANARY-TEXT"):
        assert secret not in told


async def test_a_slow_an_endless_and_a_garbled_answer_end_the_attempt(smart: SmartClient, server: Clinic) -> None:
    who = person(smart, server)
    await who.browse()
    for body in (b"[" * 600_000, b"<html>", b'"text"', b"", b'{"error": {"deep": 1}}'):
        server.body = body
        with pytest.raises((PlatformDown, PlatformUnconfigured)):
            await who.exchange()
    server.body, server.delay = None, 60.0
    started = time.monotonic()
    with pytest.raises(PlatformDown):
        await who.exchange()
    assert time.monotonic() - started < 30


async def test_quirks_of_the_token_service_are_carried_out(smart: SmartClient, server: Clinic) -> None:
    who = person(
        smart,
        server,
        token_headers=(("X-Practice", "80000"),),
        token_params=(("audience", "fhir"), ("code", "never-over-ours")),
        authorize_params=(("practice", "80000"), ("client_id", "never-over-ours")),
        aud="none",
        pkce="refused",
        scope_separator=",",
        plain_basic=True,
    )
    url = await smart.authorization(
        who.facts, OURS, redirect_uri=REDIRECT, state="s", verifier="v" * 64, nonce="n", scopes=SCOPES
    )
    assert "practice=80000" in url
    assert "never-over-ours" not in url
    assert "aud=" not in url
    assert "code_challenge" not in url
    assert "openid%2Cprofile" in url.replace("%20", "+")
    await who.browse()
    with pytest.raises(PlatformUnconfigured):
        await smart.authorization(
            who.facts, PlatformClient(CLIENT), redirect_uri=REDIRECT, state="s", verifier="v" * 64, nonce="n"
        )
    server.codes = {who.answer["code"]: {"scope": "a,b", "until": server.now + 60, "nonce": who.nonce}}
    server.forms.clear()
    token = await who.exchange()
    assert token.scopes == ("a", "b")
    form = server.forms[0]
    assert (form["audience"], form["code"]) == ("fhir", who.answer["code"])
    assert "code_verifier" not in form
    assert base64.b64decode(form["authorization"].split()[1]).decode() == f"{CLIENT}:{SECRET}"


@pytest.mark.parametrize(
    ("life", "seconds"),
    [(60, 60), ("120", 120), (None, 300), ("soon", 300), (-5, 0), (float("nan"), 300), (10**12, 86_400)],
)
def test_the_life_of_a_token_is_read_tolerantly(life: Any, seconds: float) -> None:
    token = read_answer({"access_token": "t", "expires_in": life}, 100.0, "", platform("https://x"))
    assert token.expires_at == 100.0 + seconds


def test_lives_of_tokens_and_grants_follow_the_platforms_file() -> None:
    answer = {"access_token": "t", "access_grant_expiration": "2030-01-01T00:00:00Z"}
    short = platform("https://x", sign_in=SignInFacts(token_seconds=77, grant_expiry_field="access_grant_expiration"))
    token = read_answer(answer, 1000.0, "a b", short)
    assert token.expires_at == 1077.0
    assert token.grant_until == 1_893_456_000.0
    assert token.scopes == ("a", "b"), "a server that grants what was asked may say nothing"


async def test_a_platform_without_refresh_is_not_asked_for_one(smart: SmartClient, server: Clinic) -> None:
    who = person(smart, server, refresh="none")
    token = await who.complete()
    assert "offline_access" not in token.scopes
    before = len(server.forms)
    with pytest.raises(SignInRequired):
        await smart.refresh(who.facts, OURS, token)
    assert len(server.forms) == before


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(["access_token", "scope", "expires_in", "patient", "fhirContext", "refresh_token", "exp"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
            max_leaves=5,
        ),
    )
)
def test_any_token_answer_gives_a_sound_token_or_a_plain_refusal(answer: dict[str, Any]) -> None:
    facts = platform("https://x", sign_in=SignInFacts(grant_expiry_field="exp"))
    try:
        token = read_answer(answer, 0.0, "", facts)
    except PlatformUnconfigured:
        return
    assert isinstance(token, PlatformToken)
    assert 0.0 <= token.expires_at <= 86_400.0
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(token), type=PlatformToken) == token
    assert repr(token) == "PlatformToken(...)"
