"""The development identity provider: strict, for one audience, and with state that survives a restart."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from cli.idp_stage import AGENT_SECRET, AUDIENCE, Provider, provider
from wardmesh_cli import identity
from wardmesh_cli.engines import PEOPLE
from wardmesh_cli.ports import free_port

pytestmark = pytest.mark.anyio
LOOPBACK = "http://127.0.0.1:51515/callback"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.fixture(scope="module")
def idp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with provider(tmp_path_factory.mktemp("idp"), free_port()) as started:
        yield started


def part(token: str, index: int) -> dict[str, Any]:
    text = token.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def question(**changes: str) -> dict[str, str]:
    asked = {
        "client_id": identity.CLIENT_ID,
        "response_type": "code",
        "redirect_uri": LOOPBACK,
        "scope": "openid fhir.read",
        "resource": AUDIENCE,
        "state": "s",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    return {name: value for name, value in {**asked, **changes}.items() if value}


async def refusal(idp: Provider, **changes: str) -> dict[str, list[str]]:
    """Parameters of the redirect that refuses a request."""
    async with httpx.AsyncClient(timeout=20) as http:
        answer = await http.get(f"{idp.issuer}/auth", params=question(**changes))
    return parse_qs(urlsplit(answer.headers["location"]).query)


async def test_every_demo_person_signs_in_and_gets_a_token_of_eight_hours_for_the_gateway(idp: Provider) -> None:
    for person in identity.people(PEOPLE):
        token = await identity.sign_in(idp.issuer, AUDIENCE, person)
        header, claims = part(token, 0), part(token, 1)
        assert (header["typ"], header["alg"]) == ("at+jwt", "RS256")
        assert claims["iss"] == idp.issuer
        assert claims["aud"] == AUDIENCE
        assert claims["sub"] == person.name
        assert claims["client_id"] == identity.CLIENT_ID
        assert claims["roles"] == person.roles
        assert claims["exp"] - claims["iat"] == 8 * 3600
        assert set(claims["scope"].split()) >= {"fhir.read", "fhir.write"}
        assert ("patient" in claims) == (person.name == "demo_patient")


async def test_a_wrong_password_signs_nobody_in(idp: Provider) -> None:
    with pytest.raises(identity.SignInFault, match="401"):
        await identity.sign_in(idp.issuer, AUDIENCE, identity.Person("demo_admin", "wrong", ["Admin"]))
    with pytest.raises(identity.SignInFault, match="401"):
        await identity.sign_in(idp.issuer, AUDIENCE, identity.Person("constructor", "DemoPass123!", []))


async def test_somebody_else_can_sign_in_with_a_browser_that_the_provider_remembers(idp: Provider) -> None:
    async with httpx.AsyncClient(timeout=20, base_url=idp.issuer) as browser:
        for person in identity.people(PEOPLE)[:2]:
            answer = await browser.get("/auth", params=question(prompt="login"))
            given = {"username": person.name, "password": person.password, "decision": "sign-in"}
            answer = await browser.post(answer.headers["location"], data=given)
            answer = await browser.get(answer.headers["location"])
            assert answer.status_code == 303
            page = await browser.get(answer.headers["location"])
            assert (page.status_code, person.name in page.text) == (200, True)


async def test_metadata_says_what_mcp_clients_look_for(idp: Provider) -> None:
    async with httpx.AsyncClient(timeout=20) as http:
        facts = (await http.get(f"{idp.issuer}/.well-known/oauth-authorization-server")).json()
    assert facts["issuer"] == idp.issuer
    assert facts["code_challenge_methods_supported"] == ["S256"]
    assert facts["authorization_response_iss_parameter_supported"] is True
    assert facts["client_id_metadata_document_supported"] is True
    assert "none" in facts["token_endpoint_auth_methods_supported"]
    assert facts["response_types_supported"] == ["code"]
    for name in ("registration_endpoint", "revocation_endpoint", "introspection_endpoint", "jwks_uri"):
        assert facts[name].startswith(idp.issuer)


async def test_other_audiences_and_requests_without_pkce_are_refused_with_the_issuer_named(idp: Provider) -> None:
    foreign = await refusal(idp, resource="http://localhost:9999/mcp")
    assert foreign["error"] == ["invalid_target"]
    assert foreign["iss"] == [idp.issuer]
    unprotected = await refusal(idp, code_challenge="", code_challenge_method="")
    assert unprotected["error"] == ["invalid_request"]


async def test_a_redirect_elsewhere_is_refused_on_a_page_without_a_redirect(idp: Provider) -> None:
    async with httpx.AsyncClient(timeout=20) as http:
        answer = await http.get(f"{idp.issuer}/auth", params=question(redirect_uri="https://elsewhere.test/callback"))
    assert answer.status_code == 400
    assert "location" not in answer.headers
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "elsewhere.test" not in answer.text


async def test_pages_escape_what_a_client_says_of_itself_and_show_where_it_returns(idp: Provider) -> None:
    async with httpx.AsyncClient(timeout=20, follow_redirects=True) as http:
        registration = {
            "client_name": "<img src=x>Evil",
            "redirect_uris": ["http://localhost:1234/cb"],
            "token_endpoint_auth_method": "none",
        }
        client = (await http.post(f"{idp.issuer}/reg", json=registration)).json()
        asked = question(client_id=client["client_id"], redirect_uri="http://localhost:1234/cb")
        page = await http.get(f"{idp.issuer}/auth", params=asked)
    assert page.status_code == 200
    assert "<img" not in page.text
    assert "&lt;img src=x&gt;Evil" in page.text
    assert "localhost:1234" in page.text
    policy = page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "<script" not in page.text


async def test_a_registered_scope_does_not_pin_the_client(idp: Provider) -> None:
    async with httpx.AsyncClient(timeout=20) as http:
        registration = {
            "redirect_uris": ["http://localhost:1234/cb"],
            "token_endpoint_auth_method": "none",
            "scope": "fhir.read",
        }
        client = (await http.post(f"{idp.issuer}/reg", json=registration)).json()
        asked = question(
            client_id=client["client_id"], redirect_uri="http://localhost:1234/cb", scope="fhir.read fhir.write"
        )
        answer = await http.get(f"{idp.issuer}/auth", params=asked)
    assert urlsplit(answer.headers["location"]).path.startswith("/interaction/")


async def test_the_agent_without_a_person_gets_a_token_with_its_secret_only(idp: Provider) -> None:
    form = {"grant_type": "client_credentials", "scope": "fhir.read", "resource": AUDIENCE}
    agent = identity.agent_id(PEOPLE)
    async with httpx.AsyncClient(timeout=20) as http:
        answer = await http.post(f"{idp.issuer}/token", data=form, auth=(agent, AGENT_SECRET))
        wrong = await http.post(f"{idp.issuer}/token", data=form, auth=(agent, "wrong"))
    assert part(answer.json()["access_token"], 1)["sub"] == agent
    assert wrong.status_code == 401


async def test_keys_and_registrations_survive_a_restart(tmp_path: Path) -> None:
    port = free_port()
    registration = {"redirect_uris": ["http://localhost:1234/cb"], "token_endpoint_auth_method": "none"}
    async with httpx.AsyncClient(timeout=20) as http:
        with provider(tmp_path, port) as first:
            keys = (await http.get(f"{first.issuer}/jwks")).json()
            client = (await http.post(f"{first.issuer}/reg", json=registration)).json()["client_id"]
        with provider(tmp_path, port) as second:
            assert (await http.get(f"{second.issuer}/jwks")).json() == keys
            asked = question(client_id=client, redirect_uri="http://localhost:1234/cb")
            answer = await http.get(f"{second.issuer}/auth", params=asked)
    assert "/interaction/" in answer.headers["location"]
    assert "d" not in keys["keys"][0]
    for path in (tmp_path / "keys.json", tmp_path / "storage.json"):
        assert path.stat().st_mode & 0o777 == 0o600
