"""Inbound access tokens: one verifier for gateway and auth (RFC 9068), with a bounded cache."""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry, extract_compact, validate_compact
from msgspec import Struct

from wardmesh_common.errors import Unauthenticated
from wardmesh_common.issuer_keys import IssuerKeys, SigningKey

# Signatures with a public key only: `none` and the HMAC family cannot even be configured.
ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
KEPT_CLAIMS = ("roles", "groups", "realm_access", "patient", "practitioner", "fhirUser", "tenant", "act")
MAX_TOKEN_BYTES = 16 * 1024
_MAX_NAME = 255
_MAX_SKEW = 120.0


class VerifiedToken(Struct, frozen=True, kw_only=True):
    """What is left of a token after verification; the token itself is not in it."""

    issuer: str
    subject: str
    principal_id: str
    client_id: str
    scopes: tuple[str, ...]
    claims: dict[str, Any]
    issued_at: float  # 0 = the token does not say
    expires_at: float
    digest: str  # SHA-256 of what was signed, hex: ECDSA lets anybody write the same signature in a second way


class _Cached(Struct, frozen=True):
    token: VerifiedToken
    until: float
    generation: int


class TokenVerifier:
    """Raises Unauthenticated for every token that is not wholly good, Unavailable when no keys can be had."""

    def __init__(
        self,
        keys: IssuerKeys,
        *,
        issuer: str,
        audiences: tuple[str, ...],
        algorithms: frozenset[str] = ALGORITHMS,
        token_types: tuple[str, ...] = ("at+jwt",),
        kept_claims: tuple[str, ...] = KEPT_CLAIMS,
        skew_seconds: float = 30.0,
        cache_seconds: float = 300.0,
        cache_size: int = 20_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not issuer or not audiences or not all(audiences):
            raise ValueError("issuer and audience must be named: without them any token would do")
        if not algorithms or not algorithms <= ALGORITHMS:
            raise ValueError("only signatures by public key are verified")
        if not 0 <= skew_seconds <= _MAX_SKEW:
            raise ValueError("clock skew must stay between 0 and 120 seconds")
        self._keys, self._issuer, self._audiences = keys, issuer, frozenset(audiences)
        self._types = frozenset(t.lower() for t in token_types)
        self._kept, self._skew, self._clock = kept_claims, skew_seconds, clock
        self._cache_seconds, self._cache_size = cache_seconds, cache_size
        self._cache: OrderedDict[bytes, _Cached] = OrderedDict()
        self._registry = _QuietRegistry(algorithms=algorithms)

    async def verify(self, token: str) -> VerifiedToken:
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise _refused()
        digest = hashlib.sha256(token.encode()).digest()
        cached = self._hit(digest)
        if cached is not None:
            return cached
        header, parsed = self._parse(token)
        kid = header.get("kid", "")
        key = self._keys.known(kid)
        if key is None:
            key = await self._keys.find(kid)
            # All who waited for the same keys with the same token share the first one's verification.
            cached = self._hit(digest)
            if cached is not None:
                return cached
        if key is None or not self._signed(parsed, key):
            raise _refused()
        signed = token.rpartition(".")[0].encode()
        verified = self._judge(parsed.payload, hashlib.sha256(signed).hexdigest())
        self._remember(digest, verified)
        return verified

    def forget(self, *, digest: str = "", subject: str = "") -> None:
        """Drop what is cached of one token, subject or principal id. This alone makes no token bad."""
        for key, kept in tuple(self._cache.items()):
            token = kept.token
            if (digest and digest == token.digest) or (subject and subject in (token.subject, token.principal_id)):
                del self._cache[key]

    def _hit(self, digest: bytes) -> VerifiedToken | None:
        cached = self._cache.get(digest)
        if cached is None:
            return None
        if cached.until <= self._clock() or cached.generation != self._keys.generation:
            del self._cache[digest]
            return None
        self._cache.move_to_end(digest)
        return cached.token

    def _remember(self, digest: bytes, token: VerifiedToken) -> None:
        until = min(token.expires_at, self._clock() + self._cache_seconds)
        self._cache[digest] = _Cached(token, until, self._keys.generation)
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)

    def _parse(self, token: str) -> tuple[dict[str, Any], Any]:
        try:
            parsed = extract_compact(token.encode(), registry=self._registry)
            header = parsed.headers()
            self._registry.check_header(header)
            self._registry.get_alg(header["alg"])
        except (JoseError, ValueError, TypeError, RecursionError, AttributeError):
            raise _refused() from None
        kind = str(header.get("typ", "")).lower().removeprefix("application/")
        # No critical extension is understood here; unencoded payloads have no place in a JWT (RFC 7797).
        if kind not in self._types or "crit" in header or "b64" in header:
            raise _refused()
        return header, parsed

    def _signed(self, parsed: Any, key: SigningKey) -> bool:
        try:
            return validate_compact(parsed, key, registry=self._registry)
        except (JoseError, ValueError, TypeError):
            return False

    def _judge(self, payload: bytes, digest: str) -> VerifiedToken:
        try:
            claims = msgspec.json.decode(payload, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError):
            raise _refused() from None
        return self.judged(claims, digest)

    def judged(self, claims: dict[str, Any], digest: str) -> VerifiedToken:
        """Judge claims that are known to be the issuer's: a signature holds, or the issuer itself said them."""
        now = self._clock()
        expires, not_before = _moment(claims.get("exp")), _moment(claims.get("nbf", 0))
        issued = _moment(claims.get("iat", 0))
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        subject = claims.get("sub")
        good = (
            claims.get("iss") == self._issuer
            and any(isinstance(a, str) and a in self._audiences for a in named)
            and now < expires + self._skew
            and not_before <= now + self._skew
            and issued <= now + self._skew
            and _name(subject)
        )
        if not good:
            raise _refused()
        client = next((claims[k] for k in ("client_id", "azp", "cid", "appid") if _name(claims.get(k))), "")
        return VerifiedToken(
            issuer=self._issuer,
            subject=str(subject),
            principal_id=principal_id(self._issuer, str(subject)),
            client_id=str(client),
            scopes=_words(claims.get("scope", claims.get("scp", ()))),
            claims={k: claims[k] for k in self._kept if k in claims},
            issued_at=issued,
            expires_at=expires,
            digest=digest,
        )


class _QuietRegistry(JWSRegistry):
    def get_alg(self, name: str) -> Any:
        """Our own list decides; the stock method warns about `EdDSA`, the only name many issuers know."""
        if name not in (self.allowed or ()):
            raise ValueError("algorithm not allowed")
        return self.algorithms[name]


def principal_id(issuer: str, subject: str) -> str:
    """Stable and unambiguous: two issuers may call different people by the same subject."""
    return f"{hashlib.sha256(issuer.encode()).hexdigest()[:8]}:{subject}"


def _refused() -> Unauthenticated:
    # One text for every reason: a caller learns nothing from it about what nearly worked.
    return Unauthenticated("the access token is not valid here")


def _moment(value: object) -> float:
    """A NumericDate; anything else fails both the `exp` and the `nbf` test."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return math.nan
    return float(value)


def _name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME and value.isprintable()


def _words(value: object) -> tuple[str, ...]:
    parts = value.split() if isinstance(value, str) else value if isinstance(value, list | tuple) else ()
    return tuple(p for p in parts if isinstance(p, str))
