"""Who is let in: bearer, cookie or nobody; which address counts; what a token's scopes are good for."""

from __future__ import annotations

import pytest

from gateway.rest_stage import READER, WRITER, Stage
from wardmesh_common.errors import Unauthenticated
from wardmesh_gateway.caller import TrustedProxies, agent_of
from wardmesh_gateway.known_sessions import KnownSessions
from wardmesh_gateway.ratelimit import address_key

pytestmark = pytest.mark.anyio
NOBODY = {"x-nobody": "1"}
OPEN = "/api/fhir/smarthealthit-sandbox-patient/Patient"


@pytest.mark.requirement("FG-39", "X-44")
async def test_only_reads_of_open_platforms_need_no_credential_and_one_setting_ends_that() -> None:
    stage = Stage()
    assert (await stage.get(OPEN, NOBODY)).status_code == 200
    assert (await stage.get("/fhir/smart/Patient/1", NOBODY)).status_code == 200
    assert (await stage.send("DELETE", f"{OPEN}/1", headers=NOBODY)).status_code == 401
    assert (await stage.get("/api/fhir/store/Patient", NOBODY)).status_code == 401
    assert (await stage.get("/fhir/store/Patient", NOBODY)).status_code == 401
    body = b'{"platform_id":"store","resource_type":"Patient"}'
    assert (await stage.send("POST", "/v1/tools/search", headers=NOBODY, content=body)).status_code == 401
    assert len(stage.bus.calls) == 2
    closed = Stage(anonymous_open_platforms=False)
    assert (await closed.get(OPEN, NOBODY)).status_code == 401


@pytest.mark.requirement("X-32")
@pytest.mark.parametrize(
    "header", ["Bearer nonsense", "Bearer ", "Bearer", "Basic ZG9jdG9yOng=", "doctor:fhir.read", "\xff"]
)
async def test_a_bad_credential_is_401_even_where_none_is_needed(header: str) -> None:
    stage = Stage()
    answer = await stage.get(OPEN, {"authorization": header.encode("latin-1")})  # type: ignore[dict-item]
    assert answer.status_code == 401
    assert answer.json().keys() == {"detail"}
    assert header not in answer.text
    challenge = answer.headers["www-authenticate"]
    assert 'resource_metadata="http://gateway.test/.well-known/oauth-protected-resource/mcp"' in challenge
    assert 'error="invalid_token"' in challenge
    assert stage.bus.calls == []


async def test_without_a_credential_the_challenge_names_no_error() -> None:
    answer = await Stage().get("/api/fhir/store/Patient", NOBODY)
    assert 'scope="fhir.read"' in answer.headers["www-authenticate"]
    assert "error" not in answer.headers["www-authenticate"]


@pytest.mark.requirement("FG-14")
@pytest.mark.parametrize(
    ("cookie", "bearer", "seen"),
    [
        ("app_session=abc", "", ("", "abc")),
        ("fhir_gateway_session=def", "", ("", "def")),
        ("fhir_gateway_session=def; app_session=abc", "", ("", "abc")),
        ("app_session=abc", "doctor:fhir.read", ("doctor:fhir.read", "")),
    ],
)
async def test_a_session_cookie_is_handed_to_auth_unless_a_bearer_token_takes_precedence(
    cookie: str, bearer: str, seen: tuple[str, str]
) -> None:
    stage = Stage()
    headers = {"cookie": cookie} | ({"authorization": f"Bearer {bearer}"} if bearer else {})
    assert (await stage.get("/api/fhir/store/Patient", headers)).status_code == 200
    assert (stage.bus.call.caller.bearer, stage.bus.call.caller.cookie) == seen


@pytest.mark.parametrize("cookie", ["app_session=", "other=1", "app_session=" + "x" * 600])
async def test_no_usable_session_id_is_no_credential(cookie: str) -> None:
    assert (await Stage().get("/api/fhir/store/Patient", {"cookie": cookie})).status_code == 401


async def test_a_token_without_the_scope_is_refused_challenged_and_recorded() -> None:
    stage = Stage()
    answer = await stage.send("DELETE", "/api/fhir/store/Patient/1", headers=READER)
    assert answer.status_code == 403
    assert answer.json()["detail"].startswith("Insufficient scope: ")
    assert 'error="insufficient_scope", scope="fhir.read fhir.write"' in answer.headers["www-authenticate"]
    ((call, outcome),) = stage.bus.recorded
    assert (outcome.status, call.caller.bearer, call.resource.id) == (403, "", "1")
    assert answer.headers["x-request-id"] == call.id
    assert call.principal is not None
    assert call.principal.roles == ("Doctor",)
    assert stage.bus.calls == []
    writer = {"authorization": "Bearer doctor:fhir.write"}
    assert (await stage.get("/api/fhir/store/Patient/1", writer)).status_code == 403
    assert (await stage.send("DELETE", "/api/fhir/store/Patient/1", headers=WRITER)).status_code == 200


@pytest.mark.requirement("X-38")
@pytest.mark.parametrize(
    ("setting", "peer", "forwarded", "address"),
    [
        ("", "203.0.113.7", "198.51.100.1", "203.0.113.7"),
        ("", "10.0.0.5", "198.51.100.1", "198.51.100.1"),
        ("", "127.0.0.1", "6.6.6.6, 198.51.100.1, 10.0.0.9", "198.51.100.1"),
        ("", "10.0.0.5", "10.0.0.1, 10.0.0.2", "10.0.0.1"),
        ("", "10.0.0.5", "not-an-address", "10.0.0.5"),
        ("none", "127.0.0.1", "198.51.100.1", "127.0.0.1"),
        ("203.0.113.0/24", "203.0.113.7", "198.51.100.1", "198.51.100.1"),
        ("203.0.113.0/24", "10.0.0.5", "198.51.100.1", "10.0.0.5"),
    ],
)
async def test_the_address_comes_from_proxy_headers_only_when_the_peer_is_trusted(
    setting: str, peer: str, forwarded: str, address: str
) -> None:
    stage = Stage(trusted_proxy_cidrs=setting)
    await stage.get("/api/fhir/store/Patient", {**READER, "x-forwarded-for": forwarded}, peer=peer)
    assert stage.bus.call.caller.ip == address


def test_a_network_that_cannot_be_read_is_not_trusted_silently() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        TrustedProxies(("10.0.0.0/8", "everywhere"))


async def test_without_an_issuer_no_token_holds() -> None:
    stage = Stage()
    callers = type(stage.parts.callers)(None, TrustedProxies(()), KnownSessions())
    with pytest.raises(Unauthenticated):
        await callers.check("doctor:fhir.read")


def test_a_home_user_cannot_walk_through_a_network_of_addresses() -> None:
    assert address_key("2001:db8:1:2::1") == address_key("2001:db8:1:2:ffff::9")
    assert address_key("2001:db8:1:2::1") != address_key("2001:db8:1:3::1")
    assert address_key("::ffff:198.51.100.1") == address_key("198.51.100.1")
    assert address_key("") == address_key("nonsense")


def test_a_user_agent_is_a_hint_and_no_identity() -> None:
    hint = agent_of("cursor-agent/1.0.0 (x)")
    assert (hint.id, hint.name, hint.version, hint.source) == ("unknown-agent", "cursor-agent", "1.0.0", "user-agent")
    assert agent_of("").source == ""
