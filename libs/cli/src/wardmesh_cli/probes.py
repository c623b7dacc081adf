"""Readiness questions: each answers yes or no at once and never raises."""

from __future__ import annotations

import asyncio
import contextlib

_SECONDS = 2.0


async def http_ok(port: int, path: str, host: str = "127.0.0.1") -> bool:
    """True when a GET is answered with 200."""
    return await http_status(port, path, host) == 200


async def http_status(port: int, path: str, host: str = "127.0.0.1") -> int:
    """Status of a GET, 0 when there is no answer."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
            writer.write(request.encode())
            first = await reader.readline()
        return int(first.split()[1])
    except (OSError, TimeoutError, IndexError, ValueError):
        return 0
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), _SECONDS)
