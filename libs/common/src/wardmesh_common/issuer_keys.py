"""The public signing keys of one token issuer: discovered, cached, and usable for a while when it is down."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey

from wardmesh_common.errors import Unavailable

# The body of a 200, None for any other status; without an answer Unavailable, OSError or TimeoutError.
Fetch = Callable[[str], Awaitable[bytes | None]]
SigningKey = RSAKey | ECKey | OKPKey

_KINDS: dict[str, type[RSAKey] | type[ECKey] | type[OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_MAX_DOCUMENT = 512 * 1024
_RETRY_SECONDS = 0.25  # while there are no keys at all nobody can be let in: ask again soon
_MIN_MODULUS = 342  # characters of a 2048-bit modulus; weighed before import, which would only warn

log = logging.getLogger("wardmesh.tokens")


class IssuerKeys:
    """`find` answers a key or None; raises Unavailable only when no keys may be used any more."""

    def __init__(
        self,
        issuer: str,
        fetch: Fetch,
        *,
        jwks_uri: str = "",
        fresh_seconds: float = 300.0,
        usable_seconds: float = 3600.0,
        pause_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._jwks_uri = jwks_uri
        self._fresh, self._usable, self._pause = fresh_seconds, usable_seconds, pause_seconds
        self._clock = clock
        self._keys: dict[str, SigningKey] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._wait = _RETRY_SECONDS
        self._refresh: asyncio.Task[None] | None = None
        self.generation = 0  # grows when the issuer withdraws a key: what it signed must be looked at again

    def known(self, kid: str) -> SigningKey | None:
        """A key that may be used right now; starts a refresh on the side when the keys age."""
        age = self._clock() - self._fetched_at
        if age > self._usable:
            return None
        if age > self._fresh and self._may_try():
            self._start()
        return self._keys.get(kid) if kid else self._only()

    async def find(self, kid: str) -> SigningKey | None:
        """As `known`, but asks the issuer for an unknown key, once per pause however many ask."""
        key = self.known(kid)
        if key is None and (self._refresh is not None or self._may_try()):
            # Shielded: a caller that hangs up must not take the keys away from all who wait for them.
            await asyncio.shield(self._start())
            key = self.known(kid)
        if key is None and not self._have():
            raise Unavailable("the keys of the token issuer cannot be fetched", retry_after=5)
        return key

    async def first(self, seconds: float) -> bool:
        """Wait for the first keys, but not longer than this; True when they are here.

        A replica that takes calls before it has keys would refuse whomever its older twin lets in.
        """
        limit = time.monotonic() + seconds
        while not self._have():
            await asyncio.shield(self._start())
            if not self._have() and time.monotonic() + _RETRY_SECONDS > limit:
                return False
            if not self._have():
                await asyncio.sleep(_RETRY_SECONDS)
        return True

    async def close(self) -> None:
        if self._refresh is not None:
            self._refresh.cancel()
            await asyncio.gather(self._refresh, return_exceptions=True)

    def _have(self) -> bool:
        return self._clock() - self._fetched_at <= self._usable

    def _only(self) -> SigningKey | None:
        # RFC 7515 lets a token go without a key id; with more than one key we would be guessing.
        return next(iter(self._keys.values())) if len(self._keys) == 1 else None

    def _may_try(self) -> bool:
        return self._clock() - self._tried_at >= self._wait

    def _start(self) -> asyncio.Task[None]:
        if self._refresh is None:
            self._refresh = asyncio.create_task(self._load(), name="issuer-keys")
            self._refresh.add_done_callback(self._loaded)
        return self._refresh

    def _loaded(self, _: asyncio.Task[None]) -> None:
        self._refresh = None

    async def _load(self) -> None:
        self._tried_at = self._clock()
        try:
            keys = await self._download()
        except (Unavailable, OSError, TimeoutError, ValueError) as error:
            log.warning("issuer keys not refreshed: %s", type(error).__name__)
            self._wait = min(self._pause, self._wait * 2)
            return
        withdrawn = {k.thumbprint() for k in self._keys.values()} - {k.thumbprint() for k in keys.values()}
        self.generation += bool(withdrawn)
        self._keys, self._fetched_at, self._wait = keys, self._clock(), self._pause

    async def _download(self) -> dict[str, SigningKey]:
        uri = self._jwks_uri or await self._discover()
        keys = signing_keys(_members(await self._fetch(uri)).get("keys", ()))
        if not keys:
            # Not remembered: the issuer may have moved its key document.
            raise ValueError("no usable signing key")
        return keys

    async def _discover(self) -> str:
        """RFC 8414 first, then OpenID Connect; the document must name exactly our issuer."""
        for url in discovery_urls(self._issuer):
            body = await self._fetch(url)
            if body is None:
                continue
            found = _members(body)
            uri = found.get("jwks_uri")
            if found.get("issuer") == self._issuer and isinstance(uri, str) and _safe(uri, self._issuer):
                return uri
        raise ValueError("no metadata of this issuer")


def discovery_urls(issuer: str) -> tuple[str, str]:
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    return (
        f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}",
        f"{issuer.rstrip('/')}/.well-known/openid-configuration",
    )


def signing_keys(members: object) -> dict[str, SigningKey]:
    """The usable keys by id. Symmetric, encryption, short and unreadable keys are left out, not an error."""
    keys: dict[str, SigningKey] = {}
    for member in members if isinstance(members, Sequence) else ():
        kind = _KINDS.get(str(member.get("kty"))) if isinstance(member, dict) else None
        if kind is None or member.get("use", "sig") != "sig":
            continue
        if kind is RSAKey and len(str(member.get("n", ""))) < _MIN_MODULUS:
            continue
        try:
            key = kind.import_key({k: v for k, v in member.items() if k not in {"key_ops", "x5c", "x5u"}})
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        keys[key.kid or key.thumbprint()] = key
    return keys


def _members(body: bytes | None) -> dict[str, Any]:
    if body is None or len(body) > _MAX_DOCUMENT:
        raise ValueError("no document of usable size")
    return msgspec.json.decode(body, type=dict[str, Any])


def _safe(uri: str, issuer: str) -> bool:
    """Keys are never read over a weaker connection than the issuer itself is named with."""
    return uri.startswith("https://") or (issuer.startswith("http://") and uri.startswith("http://"))
