"""Access tokens that say nothing by themselves: the issuer is asked about them (RFC 7662, OA-4)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

import aiohttp
import msgspec

from wardmesh_auth.bounded import Bounded, SingleFlight
from wardmesh_auth.settings import AuthSettings
from wardmesh_common.errors import Unauthenticated, Unavailable
from wardmesh_common.tokens import MAX_TOKEN_BYTES, TokenVerifier, VerifiedToken

_GOOD_SECONDS, _BAD_SECONDS = 30.0, 5.0  # how long a revocation at the issuer may go unseen
_MAX_ANSWER = 64 * 1024


class Introspection:
    """Answers are kept for a moment, never beyond the token's end; the same rules hold as for signed tokens."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        verifier: TokenVerifier,
        *,
        url: str,
        issuer: str,
        client_id: str,
        client_secret: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._http, self._verifier, self._clock = http, verifier, clock
        self._url, self._issuer = url, issuer
        # Both parts are form-encoded first (RFC 6749 §2.3.1), so that a colon in them does no harm.
        self._headers = {"Authorization": aiohttp.encode_basic_auth(quote_plus(client_id), quote_plus(client_secret))}
        self._known: Bounded[str, tuple[VerifiedToken | None]] = Bounded(20_000, clock)
        self._flights: SingleFlight[str, VerifiedToken | None] = SingleFlight()

    async def verify(self, token: str) -> VerifiedToken:
        """Raises Unauthenticated, Unavailable."""
        if len(token) > MAX_TOKEN_BYTES or not token.isascii() or not token.isprintable():
            raise _refused()
        digest = hashlib.sha256(token.encode()).hexdigest()
        known = self._known.get(digest) or (await self._flights.run(digest, lambda: self._ask(token, digest)),)
        if known[0] is None:
            raise _refused()
        return known[0]

    def forget(self, *, digest: str = "", subject: str = "") -> None:
        if digest:
            self._known.drop(digest)
        if subject:
            self._known.drop_where(lambda known: known[0] is not None and subject == known[0].principal_id)

    async def close(self) -> None:
        await self._flights.close()

    async def _ask(self, token: str, digest: str) -> VerifiedToken | None:
        claims = await self._answer(token)
        verified: VerifiedToken | None = None
        if claims.get("active") is True:
            # An issuer need not repeat who it is, nor when an active token ends (RFC 7662 §2.2).
            complete = {"iss": self._issuer, "exp": self._clock() + _GOOD_SECONDS, **claims}
            try:
                verified = self._verifier.judged(complete, digest)
            except Unauthenticated:
                verified = None
        left = verified.expires_at - self._clock() if verified else _BAD_SECONDS
        self._known.put(digest, (verified,), min(left, _GOOD_SECONDS))
        return verified

    async def _answer(self, token: str) -> dict[str, Any]:
        form = {"token": token, "token_type_hint": "access_token"}
        try:
            async with self._http.post(self._url, data=form, headers=self._headers, allow_redirects=False) as response:
                body = await response.content.read(_MAX_ANSWER)
                while len(body) <= _MAX_ANSWER and (more := await response.content.read(_MAX_ANSWER)):
                    body += more  # one read is what one packet brought
                if response.status != 200:
                    raise Unavailable("the token issuer does not answer about a token", retry_after=5)
            return msgspec.json.decode(body, type=dict[str, Any])
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
            raise Unavailable("the token issuer does not answer about a token", retry_after=5) from None


def introspection_of(
    settings: AuthSettings, http: aiohttp.ClientSession, verifier: TokenVerifier
) -> Introspection | None:
    if not settings.introspection_url:
        return None
    return Introspection(
        http,
        verifier,
        url=settings.introspection_url,
        issuer=settings.issuer,
        client_id=settings.introspection_client_id,
        client_secret=settings.introspection_client_secret,
    )


def _refused() -> Unauthenticated:
    return Unauthenticated("the access token is not valid here")
