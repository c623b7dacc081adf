"""Host and Origin of requests to /mcp, and CORS with the header names that MCP browsers send (OA-7, OA-8)."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from wardmesh_gateway.asgi import Header, Message, Send, respond
from wardmesh_gateway.edge_answers import REFUSED, Refusal

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_REQUEST_HEADERS = (
    "Authorization, Content-Type, Accept, Mcp-Protocol-Version, Mcp-Method, Mcp-Name, Mcp-Session-Id, Last-Event-ID, "
    "X-Break-Glass, X-MCP-Readonly, X-MCP-Tools"
)
_EXPOSED = b"WWW-Authenticate, Mcp-Session-Id"


def host_name(authority: str) -> str:
    """The host of a Host header or a URL authority, without the port."""
    authority = authority.lower()
    if authority.startswith("["):
        return authority.partition("]")[0] + "]"
    return authority.partition(":")[0]


class OriginGuard:
    """Which hosts this gateway answers for and which browser origins may talk to it."""

    def __init__(
        self, public_url: str, hosts: Iterable[str], origins: Iterable[str], parameter_headers: Iterable[str] = ()
    ) -> None:
        own = host_name(urlsplit(public_url).netloc)
        self._hosts = {host_name(host) for host in hosts} | {own}
        self._loopback = own in LOOPBACK
        if self._loopback:
            self._hosts |= LOOPBACK
        split = urlsplit(public_url)
        self._origins = {origin.rstrip("/").lower() for origin in origins} | {f"{split.scheme}://{split.netloc}"}
        # A `*` inside a header name is no wildcard in CORS: the real names are listed.
        names = "".join(f", {name}" for name in sorted(parameter_headers))
        self._allowed_headers = (_REQUEST_HEADERS + names).encode()

    def check(self, host: str, origin: str) -> None:
        """Raises the refusal for a foreign Host (421) or Origin (403)."""
        if "*" not in self._hosts and host_name(host) not in self._hosts:
            raise Refusal(421, "This gateway does not answer for that host", code=REFUSED)
        if origin and not self.allows(origin):
            raise Refusal(403, "Origin not allowed", code=REFUSED, event="security.csrf_violation")

    def allows(self, origin: str) -> bool:
        origin = origin.lower()
        if "*" in self._origins or origin in self._origins:
            return True
        # A gateway that itself lives on loopback is a development one: its neighbours may talk to it.
        _, separator, authority = origin.partition("://")
        return self._loopback and bool(separator) and host_name(authority) in LOOPBACK

    async def preflight(self, send: Send) -> None:
        headers: list[Header] = [
            (b"access-control-allow-methods", b"POST, GET, DELETE, OPTIONS"),
            (b"access-control-allow-headers", self._allowed_headers),
            (b"access-control-max-age", b"600"),
        ]
        await respond(send, 204, headers, b"")

    def headers(self, origin: str) -> tuple[Header, ...]:
        """Credentials travel in Authorization, never in cookies: no Allow-Credentials."""
        if not origin:
            return ()
        return (
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"Origin"),
        )


def adding(send: Send, headers: tuple[Header, ...]) -> Send:
    """`send` that adds headers to the answer's start."""
    if not headers:
        return send

    async def extended(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        await send(message)

    return extended
