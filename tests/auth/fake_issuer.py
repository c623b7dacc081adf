"""A token issuer and token endpoint on loopback HTTP, for tests: joserfc keys, switches for every kind of trouble."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

AUDIENCE = "https://mesh.example/mcp"


class FakeIssuer:
    def __init__(self) -> None:
        self.url = ""
        self.rsa = RSAKey.generate_key(2048, {"kid": "rsa-1", "use": "sig"})
        self.published: list[Any] = [self.rsa]
        self.reachable = True
        self.metadata_at = {"/.well-known/oauth-authorization-server"}
        self.named_issuer = ""
        self.fetches: list[str] = []
        # token endpoint
        self.token_requests: list[dict[str, str]] = []
        self.token_answer: dict[str, Any] = {}
        self.token_status = 200
        self.token_delay = 0.0
        self.answer_for: Callable[[dict[str, str]], dict[str, Any]] | None = None  # by what was asked

    def sign(self, key: Any = None, *, header: dict[str, Any] | None = None, alg: str = "RS256", **claims: Any) -> str:
        key = key or self.rsa
        now = int(time.time())
        body = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "demo_doctor",
            "client_id": "cli",
            "scope": "fhir.read",
            "iat": now,
            "exp": now + 600,
            **claims,
        }
        body = {k: v for k, v in body.items() if v is not None}
        head = {"alg": alg, "typ": "at+jwt", "kid": key.kid, **(header or {})}
        return jwt.encode({k: v for k, v in head.items() if v is not None}, body, key, algorithms=[alg])

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.fetches.append(request.path)
        if not self.reachable:
            return web.Response(status=503)
        if request.path == "/jwks":
            return web.json_response(KeySet(self.published).as_dict(private=False))
        if request.path == "/token":
            return await self._token(request)
        if request.path in self.metadata_at:
            found = {
                "issuer": self.named_issuer or self.url,
                "jwks_uri": f"{self.url}/jwks",
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
            }
            return web.json_response(found)
        return web.Response(status=404)

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = dict(await request.post())
        form["authorization"] = request.headers.get("authorization", "")
        asked = {k: str(v) for k, v in form.items()}
        self.token_requests.append(asked)
        await asyncio.sleep(self.token_delay)  # a slow platform, the subject of the test
        if self.token_status != 200:
            return web.json_response({"error": "invalid_client", "error_description": "CANARY-DESCRIPTION"}, status=401)
        return web.json_response(self.answer_for(asked) if self.answer_for else self.token_answer)


@asynccontextmanager
async def issuer() -> AsyncIterator[FakeIssuer]:
    fake = FakeIssuer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake._answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    fake.url = f"http://{host}:{port}"
    try:
        yield fake
    finally:
        await runner.cleanup()


@asynccontextmanager
async def http_fetch() -> AsyncIterator[Any]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:

        async def fetch(url: str) -> bytes | None:
            async with session.get(url) as response:
                return await response.read() if response.status == 200 else None

        yield fetch


def other_keys() -> dict[str, Any]:
    """One key for each further algorithm that is allowed."""
    return {
        "ES256": ECKey.generate_key("P-256", {"kid": "ec-1"}),
        "ES384": ECKey.generate_key("P-384", {"kid": "ec-2"}),
        "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "ed-1"}),
        "Ed25519": OKPKey.generate_key("Ed25519", {"kid": "ed-2"}),
    }
