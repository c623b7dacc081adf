"""Answers that the edge of /mcp writes itself: every error carries a JSON-RPC body (GW-6)."""

from __future__ import annotations

from typing import Any

import msgspec

from wardmesh_gateway.asgi import Header, Send, respond

PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS = -32700, -32600, -32602
HEADER_MISMATCH = -32020
REFUSED = -32000  # an HTTP-level refusal without a code of its own in the specification

JSON: Header = (b"content-type", b"application/json")
NO_STORE: Header = (b"cache-control", b"no-store")


class Refusal(Exception):
    """The edge ends this request here. Texts are ours and never quote the request."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: int = REFUSED,
        request: Any = None,
        headers: tuple[Header, ...] = (),
        event: str = "",
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.request, self.headers = request, headers
        self.event = event  # the word of FG-19 under which it is recorded; "" = it is not

    async def answer(self, send: Send) -> None:
        error = {"code": self.code, "message": self.message}
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": self.request, "error": error})
        await respond(send, self.status, [JSON, NO_STORE, *self.headers], body)


def request_id(value: Any) -> int | str | None:
    """The id of a JSON-RPC message when it has a usable one."""
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None
