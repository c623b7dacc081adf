"""Headers that every answer carries: security (FG-18) and, for configured origins, CORS (FG-30)."""

from __future__ import annotations

from collections.abc import Sequence

from wardmesh_gateway.asgi import Header, Message, Scope, Send, respond

ALWAYS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
)
STRICT_TRANSPORT: Header = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
PAGE_POLICY: Header = (
    b"content-security-policy",
    b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
ALLOWED_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
ALLOWED_HEADERS = (
    b"Authorization, Content-Type, Accept, If-Match, If-None-Match, If-Modified-Since, "
    b"If-None-Exist, Prefer, Traceparent, X-Break-Glass, X-Requested-With, Mcp-Protocol-Version, "
    b"Mcp-Method, Mcp-Name, Mcp-Session-Id, X-MCP-Readonly, X-MCP-Tools, Last-Event-ID"
)
EXPOSED_HEADERS = (
    b"ETag, Last-Modified, Location, Content-Location, Retry-After, X-Progress, WWW-Authenticate, "
    b"X-Wardmesh-Platform, X-Request-Id, Mcp-Session-Id"
)


class Dressing:
    """Adds what belongs on every answer, and answers CORS preflights before any route sees them."""

    def __init__(self, *, public_url: str, origins: Sequence[str]) -> None:
        secure = public_url.startswith("https://")
        self._always: list[Header] = [*ALWAYS, STRICT_TRANSPORT] if secure else [*ALWAYS]
        self._any_origin = "*" in origins
        self._origins = frozenset(origin.rstrip("/").encode() for origin in origins if origin != "*")

    def dress(self, send: Send, origin: bytes, *, cors: bool = True) -> Send:
        """`send` with the headers added; `cors=False` for a face that speaks CORS itself."""
        extra = [*self._always, *self._cors(origin)] if cors and origin else self._always

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: list[Header] = list(message.get("headers", ()))
                if any(name == b"content-type" and value.startswith(b"text/html") for name, value in headers):
                    self._protect_page(headers)
                message["headers"] = headers + extra
            await send(message)

        return dressed

    async def preflight(self, scope: Scope, send: Send) -> bool:
        """True when the request was a CORS preflight and has been answered."""
        given = dict(scope["headers"])
        if scope["method"] != "OPTIONS" or b"access-control-request-method" not in given:
            return False
        cors = self._cors(given.get(b"origin", b""))
        if not cors:
            await respond(send, 403, [*self._always, (b"content-type", b"text/plain")], b"Origin not allowed")
            return True
        allowed: list[Header] = [
            (b"access-control-allow-methods", ALLOWED_METHODS),
            (b"access-control-allow-headers", ALLOWED_HEADERS),
            (b"access-control-max-age", b"600"),
        ]
        await respond(send, 204, [*self._always, *cors, *allowed], b"")
        return True

    def _cors(self, origin: bytes) -> list[Header]:
        """`*` is never combined with credentials; a listed origin is named and may send them."""
        if origin and origin in self._origins:
            return [
                (b"access-control-allow-origin", origin),
                (b"access-control-allow-credentials", b"true"),
                (b"access-control-expose-headers", EXPOSED_HEADERS),
                (b"vary", b"Origin"),
            ]
        if origin and self._any_origin:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", EXPOSED_HEADERS)]
        return []

    def _protect_page(self, headers: list[Header]) -> None:
        if not any(name == b"content-security-policy" for name, _ in headers):
            headers.append(PAGE_POLICY)
