"""Command-line agents at the identity provider: the official suite, loopback on any port, and no redirect elsewhere."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import aiohttp
import httpx
import pytest

from cli.idp_stage import AUDIENCE, Provider, provider
from conformance.suites import CURRENT, NODE
from wardmesh_cli import identity
from wardmesh_cli.engines import PEOPLE
from wardmesh_cli.ports import free_port

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]
DOCTOR = next(person for person in identity.people(PEOPLE) if person.name == "demo_doctor")
SCENARIOS = (
    "authorization-server-metadata-endpoint: 2 passed, 0 failed",
    "authorization-code-grant: 1 passed, 0 failed",
)


@pytest.fixture(scope="module")
def idp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with provider(tmp_path_factory.mktemp("idp"), free_port()) as started:
        yield started


async def walked(url: str, redirect: str) -> dict[str, str]:
    """What a person's browser brings back to the redirect."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=30)) as browser:
        return await identity.walk(browser, url, DOCTOR, redirect)


async def registered(idp: Provider, *redirects: str) -> httpx.Response:
    facts = {
        "client_name": "A client of the tests",
        "application_type": "native",
        "redirect_uris": list(redirects),
        "token_endpoint_auth_method": "none",
    }
    async with httpx.AsyncClient(timeout=20) as http:
        return await http.post(f"{idp.issuer}/reg", json=facts)


def authorization(idp: Provider, client: str, redirect: str, verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    asked = {
        "client_id": client,
        "response_type": "code",
        "redirect_uri": redirect,
        "scope": "openid fhir.read",
        "resource": AUDIENCE,
        "state": "s",
        "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
        "code_challenge_method": "S256",
    }
    return f"{idp.issuer}/auth?{urlencode(asked)}"


@pytest.mark.requirement("B-9")
async def test_the_official_suite_finds_nothing_wrong_in_its_authorization_mode(idp: Provider, tmp_path: Path) -> None:
    port = free_port()
    options = ["--url", idp.issuer, "--client-id", identity.CLIENT_ID, "--resource", AUDIENCE, "-p", str(port)]
    process = await asyncio.create_subprocess_exec(
        str(NODE),
        *(str(CURRENT), "authorization", *options, "-o", str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    text = ""
    try:
        async with asyncio.timeout(60):
            while line := (await process.stdout.readline()).decode():
                text += line
                if line.startswith(f"{idp.issuer}/auth?"):
                    redirect = f"http://127.0.0.1:{port}/callback"
                    answer = await walked(line.strip(), redirect)
                    async with httpx.AsyncClient(timeout=20) as http:
                        await http.get(redirect, params=answer)
            assert await process.wait() == 0, text
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    summary = text.partition("=== SUMMARY ===")[2]
    assert re.findall(r"✓ (.*)", summary) == list(SCENARIOS), text
    assert "Total: 3 passed, 0 failed" in summary


@pytest.mark.requirement("B-9")
async def test_a_client_nobody_knew_signs_in_on_whatever_loopback_port_is_free(idp: Provider) -> None:
    """It registers itself with one port and comes back on another (RFC 8252, 7.3), as agents do at each start."""
    made = await registered(idp, f"http://127.0.0.1:{free_port()}/callback")
    assert made.status_code == 201
    client, verifier = made.json()["client_id"], secrets.token_urlsafe(48)
    redirect = f"http://127.0.0.1:{free_port()}/callback"
    answer = await walked(authorization(idp, client, redirect, verifier), redirect)
    form = {
        "grant_type": "authorization_code",
        "client_id": client,
        "redirect_uri": redirect,
        "code": answer["code"],
        "code_verifier": verifier,
        "resource": AUDIENCE,
    }
    async with httpx.AsyncClient(timeout=20) as http:
        token = await http.post(f"{idp.issuer}/token", data=form)
    assert (token.status_code, token.json()["token_type"]) == (200, "Bearer")


@pytest.mark.requirement("B-9")
@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://elsewhere.test/callback",
        "http://127.0.0.1.elsewhere.test:1234/callback",
        "http://localhost.elsewhere.test/callback",
        "http://127.0.0.1:1234@elsewhere.test/callback",
        "http://192.0.2.1:1234/callback",
        "http://127.0.0.1:1234/elsewhere",
    ],
)
async def test_a_redirect_that_was_not_registered_gets_a_page_and_no_redirect(idp: Provider, elsewhere: str) -> None:
    own = (await registered(idp, f"http://127.0.0.1:{free_port()}/callback")).json()["client_id"]
    async with httpx.AsyncClient(timeout=20) as http:
        for client in (own, identity.CLIENT_ID):
            answer = await http.get(authorization(idp, client, elsewhere, "v" * 48))
            assert answer.status_code == 400
            assert "location" not in answer.headers
            assert urlsplit(elsewhere).hostname not in answer.text.split()
