"""The body limit: counts what was received, whatever the headers claim (X-15)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from wardmesh_common.errors import TooLarge, WardmeshError


class Incomplete(WardmeshError):
    """The caller closed the connection before the body was complete."""

    code, status, issue = "validation_error", 400, "incomplete"


def too_large(limit: int) -> TooLarge:
    return TooLarge(f"Request body too large. Maximum size is {limit} bytes.")


def check_declared(headers: Iterable[tuple[bytes, bytes]], limit: int) -> None:
    """Refuse at once what already says that it is too large."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise too_large(limit)


async def read_body(receive: Callable[[], Awaitable[MutableMapping[str, Any]]], limit: int) -> bytes:
    """The request body. Raises TooLarge after `limit` bytes, Incomplete when the caller went away."""
    message = await receive()
    first: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body", False):
        if len(first) > limit:
            raise too_large(limit)
        return first
    parts: list[bytes] = []
    size = 0
    while True:
        if message["type"] != "http.request":
            raise Incomplete("The request body is incomplete.")
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large(limit)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()
