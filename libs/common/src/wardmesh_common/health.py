"""Liveness, readiness and start-up on the admin port (deploy.md §2): they depend on nothing that is shared."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

Check = Callable[[], tuple[bool, str]]


class Health:
    """State of this process, served as tiny HTTP/1.1 answers without a framework."""

    def __init__(self) -> None:
        self.started = False
        self.draining = False
        self.checks: dict[str, Check] = {}  # shown under ?verbose, never decisive
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> None:
        """Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=8192)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def answer(self, target: str) -> tuple[int, str, str]:
        """Status, media type and body for a request target."""
        path, _, query = target.partition("?")
        ready = self.started and not self.draining
        good = {"/livez": True, "/readyz": ready, "/startupz": self.started}.get(path)
        if good is None:
            return 404, "text/plain", "not found\n"
        status = 200 if good else 503
        if query != "verbose":
            return status, "text/plain", "ok\n" if good else "no\n"
        checks: dict[str, object] = {}
        for name, check in self.checks.items():
            passed, note = check()
            checks[name] = [{"status": "pass" if passed else "fail", "output": note}]
        body = json.dumps({"status": "pass" if good else "fail", "checks": checks})
        return status, "application/health+json", body

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(5):
                head = await reader.readuntil(b"\r\n\r\n")
                parts = head.split(b" ", 2)
                target = parts[1].decode("latin-1") if len(parts) > 2 else ""
                status, media_type, body = self.answer(target)
                phrase = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}[status]
                writer.write(
                    f"HTTP/1.1 {status} {phrase}\r\nContent-Type: {media_type}\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
                )
                await writer.drain()
        writer.close()
