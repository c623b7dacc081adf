"""Fetching the issuer's documents over HTTP, bounded in time and size."""

from __future__ import annotations

import aiohttp

from wardmesh_common.errors import Unavailable
from wardmesh_common.issuer_keys import Fetch

_MAX_BYTES = 512 * 1024


def fetching(http: aiohttp.ClientSession) -> Fetch:
    async def fetch(url: str) -> bytes | None:
        try:
            async with http.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    return None
                body = await response.content.read(_MAX_BYTES)
                while chunk := await response.content.read(_MAX_BYTES):
                    body += chunk
                    if len(body) > _MAX_BYTES:
                        return None
                return body
        except (aiohttp.ClientError, TimeoutError):
            raise Unavailable("the token issuer does not answer") from None

    return fetch
