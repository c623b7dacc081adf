"""Tokens of local accounts (SH-9) and the public keys of our own clients."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from wardmesh_common.errors import BadRequest
from wardmesh_gateway.asgi import Request, Send
from wardmesh_gateway.bodies import check_json, media_type_of
from wardmesh_gateway.browser import Browser
from wardmesh_gateway.entrance import Entrance

# Guessing passwords is slow at auth already; this keeps the guesses away from it.
LOGINS_PER_WINDOW = 20
KEYS_SECONDS = 60.0


class _Login(msgspec.Struct, frozen=True):
    username: str
    password: str


class _Refresh(msgspec.Struct, frozen=True):
    refresh: str


class LocalAccounts:
    """Passwords and tokens pass through here and stay nowhere."""

    def __init__(self, entrance: Entrance, browser: Browser, clock: Callable[[], float] = time.monotonic) -> None:
        self._entrance, self._browser, self._clock = entrance, browser, clock
        self._published: dict[str, Any] = {}
        self._until = 0.0

    async def issue(self, request: Request, send: Send) -> None:
        """`{username, password}` -> `{access, refresh}`."""
        await self._tokens(request, send, "issue_tokens", _Login)

    async def refresh(self, request: Request, send: Send) -> None:
        """`{refresh}` -> `{access}`."""
        await self._tokens(request, send, "refresh_tokens", _Refresh)

    async def _tokens(self, request: Request, send: Send, name: str, shape: type[msgspec.Struct]) -> None:
        self._entrance.ration("password", request, LOGINS_PER_WINDOW)
        visit = self._entrance.stranger(request)
        check_json(media_type_of(request.header(b"content-type")))
        try:
            given = msgspec.json.decode(await request.body(), type=shape)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
            names = " and ".join(shape.__struct_fields__)
            raise BadRequest(f"Invalid body: a JSON object with {names} is expected.") from None
        said = await self._browser.run(name, msgspec.structs.asdict(given), visit, request)
        await self._browser.send_json(send, said.object, [], call_id=said.call_id)

    async def keys(self, request: Request, send: Send) -> None:
        """The JWKS that platforms verify our client assertions with; asked of auth once a minute at most."""
        if self._clock() >= self._until:
            visit = self._entrance.stranger(request)
            said = await self._browser.run("published_keys", {}, visit, request)
            self._published, self._until = said.object, self._clock() + KEYS_SECONDS
        await self._browser.send_json(send, self._published, [])
