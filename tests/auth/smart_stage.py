"""A stage for the SMART client: the strict server as a Node process, our client, a browser that follows redirects."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import aiohttp

import engines
from wardmesh_auth.platform_token import PlatformToken
from wardmesh_auth.settings import PlatformClient
from wardmesh_auth.smart.client import SmartClient
from wardmesh_auth.smart.client_keys import ClientKeys
from wardmesh_auth.smart.discovery import Discovery
from wardmesh_auth.smart.one_time import new_nonce, new_state, new_verifier
from wardmesh_auth.smart.wire import Wire
from wardmesh_cli.binaries import Binaries
from wardmesh_common.questions import PlatformFacts

REDIRECT = "http://127.0.0.1:1/callback"
SERVER = Path(__file__).parent / "smart_idp" / "server.mjs"
SCOPES = ("openid", "fhirUser", "launch/patient", "offline_access", "patient/*.rs")
PUBLIC = PlatformClient("public")
BASIC = PlatformClient("basic", "a secret+with/odd:characters%20")


@contextlib.contextmanager
def strict_server(keys: ClientKeys) -> Iterator[str]:
    """The issuer; its FHIR base is `/fhir` below."""
    port, binaries = engines.free_port(), Binaries()
    issuer = f"http://127.0.0.1:{port}"
    environ = {
        "PATH": os.environ["PATH"],
        "ISSUER": issuer,
        "PORT": str(port),
        "NODE_MODULES": str(binaries.node_modules()),
        "CLIENT_JWKS": json.dumps(keys.jwks()),
    }
    command = [str(binaries.node()), str(SERVER)]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        limit = time.monotonic() + 60
        while not engines.answers(f"{issuer}/healthz"):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < limit
            time.sleep(0.05)
        yield issuer
    finally:
        process.terminate()
        process.communicate(timeout=20)


@contextlib.asynccontextmanager
async def smart_client(keys: ClientKeys | None = None, **options: Any) -> AsyncIterator[SmartClient]:
    wire = Wire(**options)
    ring = keys or ClientKeys()
    client = SmartClient(Discovery(wire), wire, lambda: ring)
    try:
        yield client
    finally:
        await client.close()
        await wire.close()


def platform(base: str, **fields: Any) -> PlatformFacts:
    return PlatformFacts(
        id="clinic",
        name="Clinic",
        type="ehr",
        fhir_base_url=base,
        has_oauth=True,
        auth_method="authorization_code",
        **fields,
    )


@dataclass
class SignIn:
    """One person's way through the platform's pages; every value can be bent before it is used."""

    smart: SmartClient
    facts: PlatformFacts
    client: PlatformClient = PUBLIC
    scopes: tuple[str, ...] = SCOPES
    redirect_uri: str = REDIRECT
    state: str = field(default_factory=new_state)
    verifier: str = field(default_factory=new_verifier)
    nonce: str = field(default_factory=new_nonce)
    answer: dict[str, str] = field(default_factory=dict)

    async def browse(self, **launch: str) -> dict[str, str]:
        url = await self.smart.authorization(
            self.facts,
            self.client,
            redirect_uri=self.redirect_uri,
            state=self.state,
            verifier=self.verifier,
            nonce=self.nonce,
            scopes=self.scopes,
            **launch,
        )
        self.answer = await follow(url, self.redirect_uri)
        return self.answer

    async def exchange(self, **bent: Any) -> PlatformToken:
        asked: dict[str, Any] = {
            "code": self.answer.get("code", ""),
            "verifier": self.verifier,
            "redirect_uri": self.redirect_uri,
            "nonce": self.nonce,
            "iss": self.answer.get("iss", ""),
            "scopes": self.scopes,
        }
        return await self.smart.exchange(self.facts, self.client, **(asked | bent))

    async def complete(self) -> PlatformToken:
        found = await self.browse()
        assert found.get("state") == self.state, found
        return await self.exchange()


async def follow(url: str, redirect_uri: str) -> dict[str, str]:
    """What the platform hands back in the redirect to us; or the text of the page where it stopped."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar, timeout=aiohttp.ClientTimeout(total=20)) as browser:
        for _ in range(12):
            async with browser.get(url, allow_redirects=False) as response:
                if response.status not in (302, 303):
                    return {"page": await response.text(), "status": str(response.status)}
                url = urljoin(url, response.headers["Location"])
            if url.startswith(redirect_uri):
                return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    raise AssertionError("too many steps")
