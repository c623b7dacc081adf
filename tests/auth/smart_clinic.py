"""A SMART server of another design, in the manner of a launcher: SMART 1, opaque tokens, its own clock, trouble.

No SMART configuration: its endpoints stand in the CapabilityStatement. Basic authentication, v1 scopes, a refresh
token that stays the same, `expires_in` as text, an identity token with `profile` instead of `fhirUser`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote_plus, urlencode

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CLIENT, SECRET = "launcher-client", "launcher secret"
_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"


class Clinic:
    def __init__(self) -> None:
        self.url = ""
        self.ahead = 0.0  # of its clock
        self.key = RSAKey.generate_key(2048, {"kid": "clinic-1", "use": "sig"})
        self.codes: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.forms: list[dict[str, str]] = []
        # trouble
        self.metadata: dict[str, Any] | None = None
        self.configuration: Any = None
        self.openid: dict[str, Any] = {}  # over the right members
        self.status: dict[str, int] = {}
        self.location = ""
        self.delay = 0.0
        self.token_extra: dict[str, Any] = {}
        self.claims: dict[str, Any] = {}  # over the right ones; None = left out
        self.signing: Any = None
        self.header: dict[str, Any] = {}
        self.raw_id_token: str | None = None
        self.body: bytes | None = None

    @property
    def base(self) -> str:
        return f"{self.url}/v/r4/fhir"

    @property
    def now(self) -> float:
        return time.time() + self.ahead

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request.path)
        await asyncio.sleep(self.delay)  # a slow server, the subject of a test
        name = request.path.rsplit("/", 1)[-1]
        if name in self.status:
            return web.Response(status=self.status[name], headers={"Location": self.location or "/"})
        if self.body is not None and name == "token":
            return web.Response(body=self.body, content_type="application/json")
        found = getattr(self, f"_{name.replace('-', '_').replace('.', '_')}", None)
        return await found(request) if found else web.Response(status=404)

    async def _metadata(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.metadata or self.statement(), content_type="application/fhir+json")

    async def _smart_configuration(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.configuration) if self.configuration is not None else web.Response(status=404)

    def statement(self, **changed: str) -> dict[str, Any]:
        places = {name: f"{self.url}/v/r4/auth/{name}" for name in ("authorize", "token", "introspect", "revoke")}
        uris = [{"url": name, "valueUri": url} for name, url in (places | changed).items()]
        security = {"extension": [{"url": "https://example.org/x"}, {"url": _OAUTH_URIS, "extension": uris}]}
        return {"resourceType": "CapabilityStatement", "rest": [{"mode": "server", "security": security}]}

    async def _openid_configuration(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"issuer": self.base, "jwks_uri": f"{self.url}/v/r4/keys"} | self.openid)

    async def _keys(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(KeySet([self.key]).as_dict(private=False))

    async def _authorize(self, request: web.Request) -> web.StreamResponse:
        asked = dict(request.query)
        code = secrets.token_urlsafe(24)
        self.codes[code] = {**asked, "until": self.now + 60}
        back = {"code": code, "state": asked.get("state", "")}
        raise web.HTTPFound(f"{asked['redirect_uri']}?{urlencode(back)}")

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = {k: str(v) for k, v in (await request.post()).items()}
        self.forms.append({**form, "authorization": request.headers.get("authorization", "")})
        if not self._known(request):
            return web.json_response({"error": "invalid_client", "error_description": "CANARY-TEXT"}, status=401)
        if form.get("grant_type") == "refresh_token":
            held = next((t for t in self.tokens.values() if t.get("refresh_token") == form.get("refresh_token")), None)
            return self._give(held["asked"]) if held and held["refresh_token"] else self._no()
        asked = self.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if asked is None or asked["until"] < self.now or asked.get("code_challenge", challenge) != challenge:
            return self._no()
        return self._give(asked, fresh=True)

    def _give(self, asked: dict[str, Any], *, fresh: bool = False) -> web.StreamResponse:
        token, refresh = secrets.token_urlsafe(24), asked.setdefault("refresh", secrets.token_urlsafe(24))
        self.tokens[token] = {"refresh_token": refresh, "asked": asked, "until": self.now + 300}
        answer: dict[str, Any] = {
            "access_token": token,
            "token_type": "bearer",
            "expires_in": "300",
            "scope": asked["scope"],
            "patient": "Patient/p7",
        }
        if fresh:
            answer |= {"refresh_token": refresh, "id_token": self._identity(asked)}
        answer |= self.token_extra
        return web.json_response({k: v for k, v in answer.items() if v is not None})

    def _identity(self, asked: dict[str, Any]) -> str:
        if self.raw_id_token is not None:
            return self.raw_id_token
        right = {
            "iss": self.base,
            "aud": CLIENT,
            "sub": "someone",
            "profile": "Practitioner/dr-7",
            "iat": int(self.now),
            "exp": int(self.now) + 300,
            "nonce": asked.get("nonce"),
        }
        body = {k: v for k, v in (right | self.claims).items() if v is not None}
        head = {"alg": "RS256", "kid": "clinic-1"} | self.header
        return jwt.encode(head, body, self.signing or self.key, algorithms=[head["alg"]])

    async def _introspect(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        held = self.tokens.get(str(form.get("token")))
        return web.json_response({"active": bool(held and held["until"] > self.now and self._known(request))})

    async def _revoke(self, request: web.Request) -> web.StreamResponse:
        gone = str((await request.post()).get("token"))
        self.tokens = {t: h for t, h in self.tokens.items() if gone not in (t, h["refresh_token"])}
        return web.Response(status=200)

    def _known(self, request: web.Request) -> bool:
        kind, _, value = request.headers.get("authorization", "").partition(" ")
        text = base64.b64decode(value).decode() if kind == "Basic" else ""
        return [unquote_plus(part) for part in text.split(":")] == [CLIENT, SECRET]

    def _no(self) -> web.StreamResponse:
        return web.json_response({"error": "invalid_grant", "error_description": "CANARY-TEXT"}, status=400)


@asynccontextmanager
async def clinic() -> AsyncIterator[Clinic]:
    server = Clinic()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()
