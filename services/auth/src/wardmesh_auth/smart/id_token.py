"""Verifies identity tokens of platforms: signature by the issuer's keys, iss, aud, azp, exp, nonce (X-8)."""

from __future__ import annotations

import hmac
import logging
import math
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry, extract_compact, validate_compact

from wardmesh_auth.bounded import Bounded
from wardmesh_auth.smart.address import Zone, reachable, zone_of
from wardmesh_auth.smart.endpoints import Endpoints
from wardmesh_auth.smart.wire import Wire
from wardmesh_common.errors import BadUpstream
from wardmesh_common.issuer_keys import IssuerKeys
from wardmesh_common.questions import PlatformFacts

_ALGS = ("RS256", "RS384", "RS512", "PS256", "PS384", "ES256", "ES384")  # signatures by public key only
_MAX_BYTES = 32 * 1024
_SKEW = 60.0
_KEYS_SECONDS = 24 * 3600.0

log = logging.getLogger("wardmesh.auth")


class IdTokens:
    """Keeps the key sets of the issuers that it met."""

    def __init__(self, wire: Wire, *, size: int = 5_000, clock: Callable[[], float] = time.time) -> None:
        self._wire, self._clock = wire, clock
        self._registry = JWSRegistry(algorithms=list(_ALGS))
        self._keys: Bounded[tuple[str, str, Zone], IssuerKeys] = Bounded(size)

    async def close(self) -> None:
        for keys in self._keys.values():
            await keys.close()

    async def verify(
        self, token: str, facts: PlatformFacts, endpoints: Endpoints, *, client_id: str, nonce: str = ""
    ) -> dict[str, Any]:
        """The claims. Raises BadUpstream when the token proves nothing, Unavailable when it cannot be checked now."""
        if len(token) > _MAX_BYTES or not token.isascii():
            raise _refused(facts, "size")
        try:
            parsed = extract_compact(token.encode(), registry=self._registry)
            header = parsed.headers()
            claims = msgspec.json.decode(parsed.payload, type=dict[str, Any])
        except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
            raise _refused(facts, "form") from None
        if header.get("alg") not in _ALGS or "crit" in header or "b64" in header:
            raise _refused(facts, "algorithm")
        issuer = endpoints.issuer or self._plausible_issuer(claims, facts, endpoints)
        if not issuer or claims.get("iss") != issuer:
            raise _refused(facts, "issuer")
        if not await self._signed(parsed, str(header.get("kid", "")), facts, endpoints, issuer):
            raise _refused(facts, "signature")
        self._judge(claims, facts, client_id, nonce)
        return claims

    def _plausible_issuer(self, claims: dict[str, Any], facts: PlatformFacts, endpoints: Endpoints) -> str:
        """Where no document names the issuer (SMART 1): the token's own word, if it lives where the platform does."""
        named = claims.get("iss")
        hosts = {urlsplit(url).netloc for url in (facts.fhir_base_url, endpoints.token) if url}
        if not isinstance(named, str) or not reachable(named, zone_of(facts)):
            return ""
        return named if urlsplit(named).netloc in hosts else ""

    async def _signed(self, parsed: Any, kid: str, facts: PlatformFacts, endpoints: Endpoints, issuer: str) -> bool:
        key = await self._of(issuer, endpoints.jwks, zone_of(facts)).find(kid)
        if key is None:
            return False
        try:
            return validate_compact(parsed, key, registry=self._registry)
        except (JoseError, ValueError, TypeError):
            return False

    def _of(self, issuer: str, jwks: str, zone: Zone) -> IssuerKeys:
        identity = (issuer, jwks, zone)
        keys = self._keys.get(identity)
        if keys is None:

            async def fetch(url: str) -> bytes | None:
                answer = await self._wire.get(url, zone)
                return answer.body if answer.status == 200 else None

            keys = IssuerKeys(issuer, fetch, jwks_uri=jwks, usable_seconds=900.0)
            self._keys.put(identity, keys, _KEYS_SECONDS)
        return keys

    def _judge(self, claims: dict[str, Any], facts: PlatformFacts, client_id: str, nonce: str) -> None:
        now = self._clock()
        audience = claims.get("aud")
        named = audience if isinstance(audience, list) else [audience]
        if client_id not in named or (len(named) > 1 and claims.get("azp", client_id) != client_id):
            raise _refused(facts, "audience")
        # Asked this way round because a time that is none compares as False.
        if not (now < _moment(claims.get("exp")) + _SKEW and _moment(claims.get("iat", 0)) <= now + _SKEW):
            raise _refused(facts, "time")
        if not isinstance(claims.get("sub"), str) or not claims["sub"]:
            raise _refused(facts, "subject")
        nonce_kept = facts.sign_in.id_token != "no-nonce"  # noqa: S105 - a rule
        if nonce and nonce_kept and not _same(claims.get("nonce"), nonce):
            raise _refused(facts, "nonce")


def fhir_user(claims: dict[str, Any]) -> str:
    """`fhirUser`, or `profile` as SMART 1 called it, when it is a reference to a person's resource."""
    for name in ("fhirUser", "profile"):
        value = claims.get(name)
        if not isinstance(value, str) or len(value) > 512 or not value.isprintable():
            continue
        kind = value.split("/")[-2] if "/" in value else ""
        if kind in ("Patient", "Practitioner", "PractitionerRole", "RelatedPerson", "Person"):
            return value
    return ""


def _same(found: object, nonce: str) -> bool:
    return isinstance(found, str) and hmac.compare_digest(found.encode(), nonce.encode())


def _moment(value: object) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else math.nan  # type: ignore[arg-type]


def _refused(facts: PlatformFacts, what: str) -> BadUpstream:
    log.warning("identity token of platform %s refused: %s", facts.id, what)
    return BadUpstream("the identity token of the platform cannot be verified")
