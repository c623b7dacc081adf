"""How clients come to the identity provider: the gateway itself, by a metadata document, and never out of the house."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cli.idp_stage import AUDIENCE, Provider, provider
from wardmesh_cli import identity
from wardmesh_cli.engines import PEOPLE
from wardmesh_cli.ports import free_port

pytestmark = pytest.mark.anyio
WEB = "wardmesh-web"
CALLBACK = "http://localhost:8000/auth/callback"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
DOCTOR = next(person for person in identity.people(PEOPLE) if person.name == "demo_doctor")


def certificate(folder: Path) -> tuple[Path, Path]:
    """Key and certificate for localhost, its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(hours=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "ca.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return secret, pem


class _Document(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        url = f"https://{self.headers['Host']}{self.path}"
        facts = {
            "client_id": url,
            "client_name": "A client that describes itself",
            "redirect_uris": [identity.REDIRECT],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        }
        body = json.dumps(facts).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a client's metadata document on this machine, and the authority that vouches for it."""
    key, authority = certificate(tmp_path_factory.mktemp("tls"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, key)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Document) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_port}/client.json", authority
        server.shutdown()


@pytest.fixture(scope="module")
def idp(tmp_path_factory: pytest.TempPathFactory, documents: tuple[str, Path]) -> Iterator[Provider]:
    url, authority = documents
    settings = {"WARDMESH_IDP_CLIENT_DOCUMENTS": url, "NODE_EXTRA_CA_CERTS": str(authority)}
    with provider(tmp_path_factory.mktemp("idp"), free_port(), **settings) as started:
        yield started


def claims(token: str) -> dict[str, Any]:
    text = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def question(client_id: str, redirect_uri: str, scope: str = "openid fhir.read") -> dict[str, str]:
    return {
        "client_id": client_id,
        "response_type": "code",
        "redirect_uri": redirect_uri,
        "scope": scope,
        "state": "s",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }


@pytest.mark.requirement("B-9")
async def test_a_client_signs_in_with_nothing_but_the_address_of_its_metadata(
    idp: Provider, documents: tuple[str, Path]
) -> None:
    token = await identity.sign_in(idp.issuer, AUDIENCE, DOCTOR, client_id=documents[0])
    found = claims(token)
    assert (found["client_id"], found["sub"], found["aud"]) == (documents[0], "demo_doctor", AUDIENCE)
    async with httpx.AsyncClient(timeout=20, follow_redirects=True) as http:
        page = await http.get(f"{idp.issuer}/auth", params=question(documents[0], identity.REDIRECT))
    assert "A client that describes itself" in page.text
    assert urlsplit(identity.REDIRECT).netloc in page.text


async def test_metadata_is_not_fetched_from_this_machine_unless_it_is_allowed(
    idp: Provider, documents: tuple[str, Path]
) -> None:
    for url in (
        documents[0].replace("/client.json", "/elsewhere.json").replace("localhost", "127.0.0.1"),
        f"{idp.issuer}/x",
    ):
        async with httpx.AsyncClient(timeout=20) as http:
            answer = await http.get(f"{idp.issuer}/auth", params=question(url, identity.REDIRECT))
        assert answer.status_code == 400
        assert "location" not in answer.headers


async def test_a_person_who_is_signed_in_comes_back_to_the_gateway_without_a_page(idp: Provider) -> None:
    asked = question(WEB, CALLBACK, "openid fhir.read audit.read")
    async with httpx.AsyncClient(timeout=20, follow_redirects=True) as browser:
        page = await browser.get(f"{idp.issuer}/auth", params=asked)
        assert 'name="password"' in page.text
        form = {"username": "demo_doctor", "password": DOCTOR.password, "decision": "sign-in"}
        answer = await browser.post(str(page.url), data=form, follow_redirects=False)
        resumed = await browser.get(answer.headers["location"], follow_redirects=False)
        assert resumed.headers["location"].startswith(f"{CALLBACK}?")
        again = await browser.get(f"{idp.issuer}/auth", params=asked, follow_redirects=False)
    returned = urlsplit(again.headers["location"])
    assert f"{returned.scheme}://{returned.netloc}{returned.path}" == CALLBACK
    assert "code" in parse_qs(returned.query)
    assert "form-action 'self' *" in page.headers["content-security-policy"]


async def test_another_client_still_asks_for_consent(idp: Provider) -> None:
    async with httpx.AsyncClient(timeout=20, follow_redirects=True) as browser:
        page = await browser.get(f"{idp.issuer}/auth", params=question(identity.CLIENT_ID, identity.REDIRECT))
        form = {"username": "demo_doctor", "password": DOCTOR.password, "decision": "sign-in"}
        consent = await browser.post(str(page.url), data=form)
    assert 'value="allow"' in consent.text
    assert urlsplit(identity.REDIRECT).netloc in consent.text


async def test_the_scopes_of_the_ledger_belong_to_roles(idp: Provider) -> None:
    found: dict[str, set[str]] = {}
    for person in identity.people(PEOPLE):
        scopes = claims(await identity.sign_in(idp.issuer, AUDIENCE, person))["scope"].split()
        found[person.name] = {scope for scope in scopes if scope.startswith("audit.")}
    assert found["demo_auditor"] == {"audit.read"}
    assert found["demo_admin"] == found["demo_compliance"] == {"audit.read", "audit.manage"}
    assert not found["demo_doctor"] | found["demo_patient"]


async def test_claude_code_is_known_without_a_network(idp: Provider) -> None:
    """It names itself by the address of its metadata; the demo must not need the internet for that (C-5)."""
    asked = question("https://claude.ai/oauth/claude-code-client-metadata", "http://localhost:3118/callback")
    async with httpx.AsyncClient(timeout=20, follow_redirects=True) as http:
        page = await http.get(f"{idp.issuer}/auth", params=asked)
    assert page.status_code == 200
    assert "Claude Code" in page.text
    assert "localhost:3118" in page.text
