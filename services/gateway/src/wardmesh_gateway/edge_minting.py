"""Puts a fresh session id on the answer of a successful legacy `initialize` (mcp.md §3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import msgspec

from wardmesh_gateway.asgi import Message, Send


def minting(send: Send, mint: Callable[[], str]) -> Send:
    """Holds the answer's start back until the body shows whether `initialize` succeeded."""
    held: list[Message] = []

    async def deciding(message: Message) -> None:
        if message["type"] == "http.response.start":
            held.append(message)
            return
        if held:
            start = held.pop()
            if start["status"] == 200 and _succeeded(cast("bytes", message.get("body", b""))):
                header = (b"mcp-session-id", mint().encode())
                start = {**start, "headers": [*start.get("headers", ()), header]}
            await send(start)
        await send(message)

    return deciding


def _succeeded(body: bytes) -> bool:
    try:
        answer = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return False
    return "result" in answer
