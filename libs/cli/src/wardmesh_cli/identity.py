"""Signs the demo people in as a browser would: authorization code with PKCE through the real pages."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import aiohttp

CLIENT_ID = "wardmesh-cli"
REDIRECT = "http://127.0.0.1:1/callback"  # never opened: we read the code from the redirect
SCOPE = "openid offline_access fhir.read fhir.write audit.read audit.manage"  # roles decide about the last two
_SECONDS = 30
_MOST_STEPS = 12


class SignInFault(Exception):
    """The identity provider did not do what a sign-in needs."""


@dataclass(frozen=True)
class Person:
    name: str
    password: str
    roles: list[str]

    @property
    def role(self) -> str:
        return self.roles[0]


def people(path: Path) -> list[Person]:
    """The demo accounts, from the file that the identity provider reads too."""
    facts = json.loads(path.read_text())
    return [Person(name, facts["password"], person["roles"]) for name, person in facts["people"].items()]


def agent_id(path: Path) -> str:
    return str(json.loads(path.read_text())["agent"]["client_id"])


async def sign_in(issuer: str, audience: str, person: Person, scope: str = SCOPE, client_id: str = CLIENT_ID) -> str:
    """The person's access token, for a public client. Raises SignInFault or aiohttp.ClientError."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    state = secrets.token_urlsafe(16)
    query = {
        "client_id": client_id,
        "response_type": "code",
        "redirect_uri": REDIRECT,
        "scope": scope,
        "resource": audience,
        "state": state,
        "prompt": "consent",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    jar = aiohttp.CookieJar(unsafe=True)  # cookies of an address without a name
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=timeout) as browser:
        answer = await walk(browser, f"{issuer}/auth?{urlencode(query)}", person, REDIRECT)
        if answer.get("state") != state or answer.get("iss") != issuer:
            raise SignInFault("the answer belongs to another request or issuer")
        form = {
            "grant_type": "authorization_code",
            "client_id": client_id,
            "redirect_uri": REDIRECT,
            "code": answer.get("code", ""),
            "code_verifier": verifier,
            "resource": audience,
        }
        async with browser.post(f"{issuer}/token", data=form) as response:
            body = await response.json(content_type=None)
            if response.status != 200:
                raise SignInFault(f"no token: {body.get('error', response.status)}")
            return str(body["access_token"])


async def walk(browser: aiohttp.ClientSession, url: str, person: Person, redirect: str) -> dict[str, str]:
    """Follow redirects and answer the two pages until the code arrives at `redirect`."""
    form: dict[str, str] | None = None
    for _ in range(_MOST_STEPS):
        method = "POST" if form else "GET"
        async with browser.request(method, url, data=form, allow_redirects=False) as response:
            if response.status in {302, 303}:
                url, form = urljoin(url, response.headers["Location"]), None
                if url.startswith(redirect):
                    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
                continue
            page = await response.text()
            if response.status != 200 or form is not None:
                raise SignInFault(f"the page answered {response.status}")
        if 'name="password"' in page:
            form = {"username": person.name, "password": person.password, "decision": "sign-in"}
        else:
            form = {"decision": "allow"}
    raise SignInFault("too many steps")
