"""Tokens of local accounts (SH-9): signed with the deployment's SECRET_KEY, for demonstrations and small sites."""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import time
import uuid
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from msgspec import Struct

from wardmesh_common.errors import Unauthenticated
from wardmesh_common.tokens import MAX_TOKEN_BYTES, VerifiedToken, principal_id

ISSUER = "wardmesh-local"
MIN_SECRET = 32
ACCESS_SECONDS = 3600  # SH-9
_ALG = "HS256"
_SKEW = 30.0
# A first-party log-in; what its role may do is policy's business.
_SCOPES = ("fhir.read", "fhir.write", "audit.read")


class LocalUser(Struct, frozen=True, kw_only=True):
    user_id: str
    username: str
    role: str
    email: str = ""
    patient: str = ""
    practitioner: str = ""


class LocalTokens:
    """Symmetric, so only who may also issue can verify: auth alone."""

    def __init__(self, secret: str, audience: str, clock: Callable[[], float] = time.time) -> None:
        if len(secret) < MIN_SECRET:
            raise ValueError("the secret key must have at least 32 characters")
        self._key = OctKey.import_key(secret)
        self._audience, self._clock = audience, clock

    def issue(self, user: LocalUser) -> str:
        now = int(self._clock())
        claims = {
            **{name: value for name, value in msgspec.structs.asdict(user).items() if value or name == "email"},
            "iss": ISSUER,
            "sub": user.user_id,
            "aud": self._audience,
            "iat": now,
            "exp": now + ACCESS_SECONDS,
            "jti": uuid.uuid4().hex,
            "token_type": "access",
        }
        return jwt.encode({"alg": _ALG, "typ": "JWT"}, claims, self._key, algorithms=[_ALG])

    def verify(self, token: str) -> VerifiedToken:
        """Raises Unauthenticated. A token of another system that shares the key need not name issuer or audience."""
        if len(token) > MAX_TOKEN_BYTES or not symmetric(token):
            raise _refused()
        try:
            claims: dict[str, Any] = jwt.decode(token, self._key, algorithms=[_ALG]).claims
        except (JoseError, ValueError, TypeError, RecursionError):
            raise _refused() from None
        now, expires, issued = self._clock(), _moment(claims.get("exp")), _moment(claims.get("iat", 0))
        subject = claims.get("user_id", claims.get("sub"))
        subject = str(subject) if isinstance(subject, int) and not isinstance(subject, bool) else subject
        good = (
            claims.get("iss", ISSUER) == ISSUER
            and claims.get("aud", self._audience) == self._audience
            and claims.get("token_type", "access") == "access"
            and now < expires
            and issued <= now + _SKEW
            and isinstance(subject, str)
            and 0 < len(subject) <= 255
            and subject.isprintable()
        )
        if not good:
            raise _refused()
        return VerifiedToken(
            issuer=ISSUER,
            subject=str(subject),
            principal_id=principal_id(ISSUER, str(subject)),
            client_id="",
            scopes=_SCOPES,
            claims={k: claims[k] for k in ("role", "patient", "practitioner") if isinstance(claims.get(k), str)},
            issued_at=issued,
            expires_at=expires,
            digest=hashlib.sha256(token.encode()).hexdigest(),
        )


def symmetric(token: str) -> bool:
    """True when the header says that it was signed with a shared key; nothing is verified by that."""
    head, dot, _ = token.partition(".")
    return bool(dot) and token.isascii() and len(head) <= 512 and _algorithm(head) == _ALG


@lru_cache(maxsize=256)
def _algorithm(head: str) -> str:
    try:
        members = msgspec.json.decode(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return ""
    return str(members.get("alg", "")) if isinstance(members, dict) else ""


def _moment(value: object) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if good else math.nan  # type: ignore[arg-type]


def _refused() -> Unauthenticated:
    return Unauthenticated("the access token is not valid here")
