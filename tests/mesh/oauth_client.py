"""The MCP SDK's own OAuth client, with a browser made of httpx that answers the identity provider's pages."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import httpx2
from mcp.client import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

from wardmesh_cli import identity

REDIRECT = "http://127.0.0.1:51515/callback"
_REDIRECTS = [AnyUrl(REDIRECT)]


@dataclass
class Kept:
    """What a client stores, and every request that its sign-in made."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None
    asked: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    requests: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Person:
    """Answers the pages; a second sign-in of the same person finds its cookies again."""

    def __init__(self, person: identity.Person, kept: Kept, redirect: str) -> None:
        self._person, self._kept, self._redirect = person, kept, redirect
        self._answer: dict[str, str] = {}

    async def open(self, url: str) -> None:
        self._kept.asked.append({name: values[0] for name, values in parse_qs(urlsplit(url).query).items()})
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=60)) as browser:
            self._answer = await identity.walk(browser, url, self._person, self._redirect)

    async def returned(self) -> AuthorizationCodeResult:
        answer = self._answer
        return AuthorizationCodeResult(code=answer["code"], state=answer["state"], iss=answer.get("iss"))


def preregistered(client_id: str) -> OAuthClientInformationFull:
    return OAuthClientInformationFull(
        client_id=client_id,
        redirect_uris=_REDIRECTS,
        token_endpoint_auth_method="none",
    )


@contextlib.asynccontextmanager
async def connected(url: str, person: identity.Person, kept: Kept, **options: Any) -> AsyncGenerator[Client]:
    """An SDK client that signs in by itself when it meets a challenge."""
    browser = Person(person, kept, REDIRECT)
    metadata = OAuthClientMetadata(
        client_name="A client of the tests",
        redirect_uris=_REDIRECTS,
        token_endpoint_auth_method="none",
        application_type="native",
    )
    provider = OAuthClientProvider(url, metadata, kept, browser.open, browser.returned)

    async def note(response: httpx2.Response) -> None:
        kept.requests.append((f"{response.request.method} {response.request.url.path}", response.status_code))

    hooks = {"response": [note]}
    async with (
        httpx2.AsyncClient(auth=provider, timeout=60, event_hooks=hooks) as http,
        Client(streamable_http_client(url, http_client=http), **options) as client,
    ):
        yield client
