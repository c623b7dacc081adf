"""One HTTP exchange with a platform: aiohttp sessions per base, capped bodies, no redirects, no cookies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Struct
from yarl import URL

from wardmesh_common.errors import BadUpstream, TooLarge
from wardmesh_common.streamed import Streamed
from wardmesh_fhir_proxy.compression import Inflater
from wardmesh_fhir_proxy.receiving import streamed, worth_streaming

MAX_ANSWER_BYTES = 50 * 1024 * 1024
READ_BUFFER = 1 << 18


class UpstreamRequest(Struct, kw_only=True):
    """What is sent: the URL is complete and already legal; it is not encoded again."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes = b""
    retryable: bool = False
    write: bool = False
    streamed: bool = False  # a large answer is handed on while it arrives


class UpstreamAnswer(Struct):
    status: int
    headers: Mapping[str, str]
    body: bytes
    stream: Streamed | None = None  # instead of `body`
    encoding: str = ""  # how the stream is compressed, when the caller takes it like that


class ConnectFailed(Exception):
    """Nothing was sent: the request certainly had no effect."""


class ExchangeFailed(Exception):
    """The connection broke after sending began: the request may have had an effect."""


class Transport:
    """One aiohttp session per upstream base. Narrow on purpose, so that another client can stand in."""

    def __init__(self, *, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        self._cap = max_answer_bytes
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    def _session(self, base: str, limit: int) -> aiohttp.ClientSession:
        session = self._sessions.get(base)
        if session is None:
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=limit, ttl_dns_cache=60, keepalive_timeout=30),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0),
                trust_env=False,
                read_bufsize=READ_BUFFER,
            )
            # aiohttp repeats a GET, PUT or DELETE by itself when a kept connection turns out to be closed, and has no
            # option against it. Who may be repeated is our decision (PX-9); a test counts the attempts.
            session._retry_connection = False  # pyright: ignore[reportPrivateUsage]
            self._sessions[base] = session
        return session

    async def exchange(self, base: str, limit: int, request: UpstreamRequest) -> UpstreamAnswer:
        """Send and read the answer, the whole of it unless it is to be streamed.

        Raises ConnectFailed, ExchangeFailed, TooLarge or BadUpstream.
        """
        session = self._session(base, limit)
        try:
            response = await session.request(
                request.method,
                URL(request.url, encoded=True),
                headers=request.headers,
                data=request.body or None,
                allow_redirects=False,
            )
            if request.streamed and worth_streaming(response):
                return _begun(response, request.headers.get("Accept-Encoding", "identity"))
            async with response:
                return UpstreamAnswer(response.status, response.headers, await self._read(response))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            raise ConnectFailed from error
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            raise ExchangeFailed from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        length = response.content_length
        if length is not None and length > self._cap:
            raise TooLarge("The platform's answer is larger than the limit.")
        if encoding in {"", "identity"}:
            return await self._read_plain(response, length)
        inflater = Inflater(encoding, self._cap)
        pieces: list[bytes] = []
        async for chunk in response.content.iter_any():
            pieces.extend(inflater.feed(chunk))
        if not pieces and not response.content.total_bytes:
            return b""  # HEAD and 304 name an encoding without sending anything
        pieces.append(inflater.finish())
        return b"".join(pieces)

    async def _read_plain(self, response: aiohttp.ClientResponse, length: int | None) -> bytes:
        if length is not None:
            return await response.read()
        pieces: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > self._cap:
                raise TooLarge("The platform's answer is larger than the limit.")
            pieces.append(chunk)
        return b"".join(pieces)

    async def close(self) -> None:
        sessions = list(self._sessions.values())
        self._sessions.clear()
        for session in sessions:
            await session.close()
        if sessions:
            await asyncio.sleep(0)


def _begun(response: aiohttp.ClientResponse, taken: str) -> UpstreamAnswer:
    try:
        body, encoding = streamed(response, taken)
    except BadUpstream:
        response.close()
        raise
    return UpstreamAnswer(200, response.headers, b"", body, encoding)


def media_checked(answer: UpstreamAnswer, allowed: frozenset[str]) -> bytes:
    """The body of a success that must be FHIR JSON."""
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind not in allowed or answer.body.lstrip()[:1] != b"{":
        raise BadUpstream("The platform answered with something that is not FHIR JSON.")
    return answer.body
