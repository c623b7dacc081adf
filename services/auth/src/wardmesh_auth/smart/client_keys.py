"""Our own signing keys for private_key_jwt: what is published, what signs, and how one follows the other."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeyParameters, RSAKey
from msgspec import Struct

from wardmesh_common.errors import PlatformUnconfigured

ALGS = ("ES384", "RS384")  # what SMART App Launch asks of both sides
ASSERTION_SECONDS = 240  # five minutes at most
_SKEW = 60
_LEAD_SECONDS = 900.0  # a new key is published this long before it signs: platforms cache our key set
_AFTER_SECONDS = 2.0 * (ASSERTION_SECONDS + _SKEW)  # an old one stays published until what it signed has expired
_CURVE = "P-384"
_BITS = 3072


class ClientKey(Struct, frozen=True):
    """One private key; `since` is when it was first published (unix seconds)."""

    key: RSAKey | ECKey
    alg: str
    since: float = 0.0

    def __repr__(self) -> str:
        return "ClientKey(...)"


class ClientKeys:
    """An immutable ring; time alone decides which key signs and which are published."""

    def __init__(self, ring: Sequence[ClientKey] = (), clock: Callable[[], float] = time.time) -> None:
        self._ring = tuple(sorted(ring, key=lambda k: k.since))
        self._clock = clock

    @classmethod
    def generate(cls, clock: Callable[[], float] = time.time) -> ClientKeys:
        """A first pair; nobody knows an older one, so both sign at once."""
        return cls([_new(alg, 0.0) for alg in ALGS], clock)

    @classmethod
    def parse(cls, text: str, clock: Callable[[], float] = time.time) -> ClientKeys:
        """From a private JWK set as `dump` writes it, or one PEM key. Raises ValueError, which quotes nothing."""
        try:
            if text.lstrip().startswith("{"):
                members = json.loads(text)
                return cls([_imported(m) for m in members.get("keys", [members])], clock)
            return cls([_from_pem(text)], clock)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            raise ValueError("not a private JWK set or PEM key for RS384 or ES384") from None

    @property
    def algs(self) -> tuple[str, ...]:
        return tuple(alg for alg in ALGS if any(k.alg == alg for k in self._ring))

    def jwks(self) -> dict[str, Any]:
        """The public set: keys that sign, that soon will, and that signed what may still be under way."""
        return {"keys": [_public(k) for k in self._ring if not self._over(k)]}

    def assertion(self, client_id: str, audience: str, alg: str) -> str:
        """A client assertion (RFC 7523) for one use. Raises PlatformUnconfigured without a key for `alg`."""
        key = self._signing(alg)
        if key is None:
            raise PlatformUnconfigured("no signing key is configured for this platform")
        now = int(self._clock())
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": audience,
            "jti": uuid.uuid4().hex,
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
        }
        return jwt.encode({"alg": alg, "typ": "JWT", "kid": key.key.kid}, claims, key.key, algorithms=[alg])

    def rotated(self) -> ClientKeys:
        """A ring with a new key per algorithm, and without those that are over."""
        now = self._clock()
        kept = [k for k in self._ring if not self._over(k)]
        return ClientKeys([*kept, *(_new(alg, now) for alg in ALGS)], self._clock)

    def dump(self) -> str:
        """The whole ring with its private parts, as `parse` reads it."""
        members = [{**k.key.as_dict(private=True), "alg": k.alg, "since": k.since} for k in self._ring]
        return json.dumps({"keys": members})

    def _signing(self, alg: str) -> ClientKey | None:
        """The newest that was published long enough; while none was, the oldest."""
        mine = [k for k in self._ring if k.alg == alg]
        ripe = [k for k in mine if k.since + _LEAD_SECONDS <= self._clock()]
        return ripe[-1] if ripe else (mine[0] if mine else None)

    def _over(self, key: ClientKey) -> bool:
        followers = [k.since for k in self._ring if k.alg == key.alg and k.since > key.since]
        return bool(followers) and min(followers) + _LEAD_SECONDS + _AFTER_SECONDS <= self._clock()


def _new(alg: str, since: float) -> ClientKey:
    options: KeyParameters = {"kid": uuid.uuid4().hex, "use": "sig", "alg": alg}
    key = RSAKey.generate_key(_BITS, options) if alg == "RS384" else ECKey.generate_key(_CURVE, options)
    return ClientKey(key, alg, since)


def _imported(members: dict[str, Any]) -> ClientKey:
    since = float(members.get("since", 0.0))
    plain = {name: value for name, value in members.items() if name not in {"since", "key_ops"}}
    return _checked(RSAKey.import_key(plain) if plain["kty"] == "RSA" else ECKey.import_key(plain), since)


def _from_pem(text: str) -> ClientKey:
    try:
        return _checked(RSAKey.import_key(text), 0.0)
    except (JoseError, ValueError, TypeError):
        return _checked(ECKey.import_key(text), 0.0)


def _checked(key: RSAKey | ECKey, since: float) -> ClientKey:
    if not key.is_private or (isinstance(key, ECKey) and key.curve_name != _CURVE):
        raise ValueError("unusable key")
    key.ensure_kid()
    return ClientKey(key, "RS384" if isinstance(key, RSAKey) else "ES384", since)


def _public(key: ClientKey) -> dict[str, Any]:
    return {**key.key.as_dict(private=False), "use": "sig", "alg": key.alg}
