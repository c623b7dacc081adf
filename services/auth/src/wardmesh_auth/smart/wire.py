"""HTTP to the sign-in services of platforms: bounded in time and size, no redirects, no address out of bounds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
from aiohttp.resolver import DefaultResolver
from msgspec import Struct

from wardmesh_auth.smart.address import PublicResolver, Zone, reachable
from wardmesh_common.errors import PlatformDown, PlatformUnconfigured

_MAX_DOCUMENT = 512 * 1024
_CONNECT_SECONDS = 3.0
_PER_HOST = 8

log = logging.getLogger("wardmesh.auth")


class Answer(Struct, frozen=True):
    """What a platform said; the text form shows nothing of it."""

    status: int
    body: bytes
    retry_after: str = ""

    def __repr__(self) -> str:
        return f"Answer({self.status})"

    def members(self) -> dict[str, Any]:
        """The JSON object of the body; empty when it is none."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except msgspec.DecodeError:
            return {}


class Wire:
    """One per process. Two pools: names of public platforms resolve to public addresses only."""

    def __init__(self, seconds: float = 8.0) -> None:
        self._seconds = seconds
        self._pools: dict[bool, aiohttp.ClientSession] = {}

    async def get(
        self, url: str, zone: Zone, *, accept: str = "application/json", limit: int = _MAX_DOCUMENT
    ) -> Answer:
        """Raises PlatformDown without an answer, PlatformUnconfigured for an address that is out of bounds."""
        return await self._send("GET", url, zone, {"Accept": accept}, None, limit)

    async def post(self, url: str, zone: Zone, body: str, headers: Mapping[str, str]) -> Answer:
        return await self._send("POST", url, zone, headers, body.encode(), _MAX_DOCUMENT)

    async def close(self) -> None:
        pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            await pool.close()

    async def _send(
        self, method: str, url: str, zone: Zone, headers: Mapping[str, str], body: bytes | None, limit: int
    ) -> Answer:
        if not reachable(url, zone):
            raise PlatformUnconfigured("the platform names a sign-in address that must not be opened")
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._pool(zone).request(method, url, headers=headers, data=body, allow_redirects=False) as response,
            ):
                return Answer(response.status, await _bounded(response, limit), response.headers.get("Retry-After", ""))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            # The text may name hosts or quote an answer: only the kind of failure is told.
            log.warning("a platform's sign-in service could not be asked: %s", type(error).__name__)
            raise PlatformDown("the sign-in service of the platform does not answer", retry_after=5) from None

    def _pool(self, zone: Zone) -> aiohttp.ClientSession:
        guarded = zone is Zone.PUBLIC
        pool = self._pools.get(guarded)
        if pool is None:
            resolver = PublicResolver() if guarded else DefaultResolver()
            pool = self._pools[guarded] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=resolver, limit_per_host=_PER_HOST),
                timeout=aiohttp.ClientTimeout(total=self._seconds, connect=_CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),  # one person's sign-in leaves nothing for the next
                auto_decompress=True,
            )
        return pool


async def _bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_chunked(64 * 1024):
        body += piece
        if len(body) > limit:
            response.close()
            raise ValueError("the answer is too large")
    return bytes(body)
