"""Cookies in and out: an opaque session id under the names of FG-14 and SM-2, and what binds an SM login."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from msgspec import Struct

from wardmesh_gateway.asgi import Header

SESSION = "app_session"
SM_SESSION, SM_STATE, SM_VERIFIER = "FHIR_SESSION_COOKIE", "FHIR_AUTH_STATE_COOKIE", "FHIR_PKCE_VERIFIER_COOKIE"
# The first name that is there wins; the others are what earlier systems called it.
SESSION_NAMES = (SESSION, "fhir_gateway_session", SM_SESSION, "fhir_session")
STATE_NAMES = (SM_STATE, "fhir_auth_state")
VERIFIER_NAMES = (SM_VERIFIER, "fhir_pkce_verifier")
MAX_COOKIE = 512
LOGIN_SECONDS = 900
_LABEL = b"wardmesh sm login v1:"


def read(headers: Iterable[Header], names: Iterable[str]) -> str:
    """The first usable value under one of these names, or the empty string."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name == b"cookie":
            for part in value.decode("latin-1").split(";"):
                key, _, text = part.strip().partition("=")
                found.setdefault(key, text.strip('"'))
    return pick(found, names)


def pick(found: Mapping[str, str], names: Iterable[str]) -> str:
    for name in names:
        value = found.get(name, "")
        if value and len(value) <= MAX_COOKIE and value.isascii() and value.isprintable():
            return value
    return ""


class CookieWords(Struct, frozen=True):
    """How cookies are set here; `secure` is off only for local HTTP (FG-14)."""

    secure: bool

    def _set(self, name: str, value: str, max_age: int) -> Header:
        secure = "; Secure" if self.secure else ""
        text = f"{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}"
        return (b"set-cookie", text.encode("latin-1"))

    def session(self, secret: str, max_age: int, *, sm: bool = False) -> list[Header]:
        names = (SESSION, SM_SESSION) if sm else (SESSION,)
        return [self._set(name, secret, max_age) for name in names]

    def login(self, state: str, key: bytes) -> list[Header]:
        """State and verifier of an SM login (SM-2): ids only, the true verifier stays with auth (X-24)."""
        bound = ((SM_STATE, state), (SM_VERIFIER, _bound(state, key)))
        return [self._set(name, value, LOGIN_SECONDS) for name, value in bound]

    def without_login(self) -> list[Header]:
        return [self._set(name, "", 0) for name in (SM_STATE, SM_VERIFIER)]

    def without_session(self, headers: Iterable[Header]) -> list[Header]:
        """Every name under which this browser keeps a session."""
        headers = list(headers)
        held = [name for name in SESSION_NAMES if name == SESSION or read(headers, (name,))]
        return [self._set(name, "", 0) for name in held]


class SmLogin(Struct, frozen=True, kw_only=True):
    """What a browser's cookies say about the SM login that a callback claims to end."""

    state: str
    verifier: str

    def complaint(self, state: str, keys: Iterable[bytes]) -> str:
        """In the words of SM-3; empty when this browser began the login of that state."""
        if not self.verifier:
            return "Missing PKCE verifier cookie"
        if not self.state:
            return "Missing state cookie"
        same = hmac.compare_digest(self.state.encode(), state.encode())
        if not same or not any(hmac.compare_digest(self.verifier, _bound(state, key)) for key in keys):
            return "State mismatch"
        return ""


def sm_login(scope: Mapping[str, Any]) -> SmLogin:
    headers: list[Header] = scope["headers"]
    return SmLogin(state=read(headers, STATE_NAMES), verifier=read(headers, VERIFIER_NAMES))


def _bound(state: str, key: bytes) -> str:
    return hmac.new(key, _LABEL + state.encode(), sha256).hexdigest()
