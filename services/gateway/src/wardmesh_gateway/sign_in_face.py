"""Sign-in for browsers and applications: /auth/..., the callbacks, local accounts and our public keys (C-4, FG-11)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from wardmesh_common.errors import NotAllowed, NotFound
from wardmesh_gateway.asgi import Request, Send
from wardmesh_gateway.break_glass import BreakGlassRoutes
from wardmesh_gateway.browser import Browser
from wardmesh_gateway.callback import Callback
from wardmesh_gateway.entrance import Entrance
from wardmesh_gateway.local_accounts import LocalAccounts
from wardmesh_gateway.person_routes import PersonRoutes
from wardmesh_gateway.platform_routes import PlatformRoutes
from wardmesh_gateway.rules import check_platform

# Words in the place of a platform id below /auth/.
RESERVED = frozenset({"login", "callback", "logout", "status", "wait"})
PREFIX = "/auth/"

Route = Callable[[Request, Send], Awaitable[None]]
PlatformRoute = Callable[[Request, Send, str], Awaitable[None]]


class SignInFace:
    """Which route answers; how it does is theirs. Errors are pages for browsers and `{"detail"}` for others."""

    def __init__(
        self,
        entrance: Entrance,
        browser: Browser,
        platforms: PlatformRoutes,
        person: PersonRoutes,
        callback: Callback,
        accounts: LocalAccounts,
        glass: BreakGlassRoutes,
    ) -> None:
        self._entrance = entrance
        self._browser = browser
        self._callback = callback
        self._routes: dict[str, tuple[str, Route]] = {
            "/": ("GET", person.start),
            "/auth/login": ("GET", person.login),
            "/auth/logout": ("GET", person.logout),
            "/logout": ("GET", person.logout),
            "/auth/status": ("GET", platforms.status),
            "/api/break-glass": ("POST", glass.open),
            "/api/break-glass/close": ("POST", glass.close),
            "/api/token": ("POST", accounts.issue),
            "/api/token/refresh": ("POST", accounts.refresh),
            "/.well-known/jwks.json": ("GET", accounts.keys),
        }
        self._platform_routes: dict[str, tuple[str, PlatformRoute]] = {
            "login": ("GET", platforms.login),
            "wait": ("GET", platforms.wait),
            "logout": ("POST", platforms.logout),
        }

    def owns(self, path: str) -> bool:
        return path.startswith(PREFIX) or _bare(path) in self._routes or path == "/oauth/callback"

    async def __call__(self, request: Request, send: Send) -> None:
        await self._entrance.run(self._route, request, send, self._browser.render(request), self._browser.type(request))

    async def _route(self, request: Request, send: Send) -> None:
        path = _bare(request.path)
        known = self._routes.get(path)
        if known is not None:
            method, route = known
            _only(request, method)
            await route(request, send)
            return
        parts = path.split("/")[2:]
        if path == "/oauth/callback" or (parts[0] == "callback" and len(parts) <= 2):
            _only(request, "GET")
            await self._callback(request, send, parts[1] if path != "/oauth/callback" and len(parts) == 2 else "")
            return
        if len(parts) != 2 or parts[0] in RESERVED or parts[1] not in self._platform_routes:
            raise NotFound("There is nothing at this address.")
        method, platform_route = self._platform_routes[parts[1]]
        _only(request, method)
        await platform_route(request, send, check_platform(parts[0]))


def _bare(path: str) -> str:
    return path.rstrip("/") or "/"


def _only(request: Request, method: str) -> None:
    if request.method != method:
        raise NotAllowed("This method is not offered here.")
