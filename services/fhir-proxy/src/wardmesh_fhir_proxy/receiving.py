"""Content that nobody looks into, received piece by piece while it is sent on (PX-6)."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from wardmesh_common.errors import BadUpstream
from wardmesh_common.streamed import UNKNOWN_SIZE, Streamed
from wardmesh_fhir_proxy.compression import Inflater

# What is smaller is read as a whole: a stream pays for itself only above it.
WHOLE_BYTES = 256 * 1024
PLAIN = frozenset({"", "identity"})


def worth_streaming(response: aiohttp.ClientResponse) -> bool:
    return response.status == 200 and (response.content_length is None or response.content_length > WHOLE_BYTES)


def streamed(response: aiohttp.ClientResponse, taken: str) -> tuple[Streamed, str]:
    """The rest of this response, and how it is compressed; `taken` is the one compression that the caller takes."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    as_it_is = encoding in PLAIN or encoding == taken
    size = response.content_length if as_it_is and response.content_length is not None else UNKNOWN_SIZE
    parts = _received(response) if as_it_is else _inflated(response, Inflater(encoding, sys.maxsize))

    async def close() -> None:
        await parts.aclose()
        # Unread content is not worth the connection.
        response.close()

    return Streamed(parts, size, close), encoding if as_it_is and encoding not in PLAIN else ""


async def _received(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, HttpProcessingError, OSError):
        raise BadUpstream("The platform's answer ended early.") from None


async def _inflated(response: aiohttp.ClientResponse, inflater: Inflater) -> AsyncGenerator[bytes, None]:
    """Its size is nobody's business here, but its ratio is: a bomb stops early."""
    async for chunk in _received(response):
        for piece in inflater.feed(chunk):
            yield piece
    yield inflater.finish()
