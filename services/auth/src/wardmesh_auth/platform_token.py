"""A token of a platform while auth holds it, and the client credentials exchange that yields one (Authlib)."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx2
from authlib.integrations.httpx_client import AsyncOAuth2Client, OAuthError
from msgspec import Struct

from wardmesh_auth.settings import PlatformClient
from wardmesh_common.errors import PlatformDown, PlatformUnconfigured
from wardmesh_common.questions import PlatformFacts

_METHODS = frozenset({"client_secret_basic", "client_secret_post"})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_EXCHANGE_SECONDS = 8.0
_UNSAID_SECONDS = 300.0  # RFC 6749 lets a server keep silent about the life of a token
_MAX_TOKEN = 64 * 1024

log = logging.getLogger("wardmesh.auth")


class FhirContext(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One item of `fhirContext`: what else was open in the record when the person launched us."""

    reference: str = ""
    role: str = ""
    type: str = ""
    canonical: str = ""


class PlatformToken(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one token endpoint gave. Its text form shows nothing: it must not end up in a log by accident."""

    access_token: str
    scopes: tuple[str, ...] = ()
    patient: str = ""
    issued_at: float = 0.0
    expires_at: float = 0.0
    refresh_token: str = ""
    grant_until: float = 0.0  # when the person's consent ends and no refresh helps; 0 = not said
    encounter: str = ""
    fhir_context: tuple[FhirContext, ...] = ()
    need_patient_banner: bool | None = None
    intent: str = ""
    fhir_user: str = ""  # from the verified identity token only, as are subject and issuer
    subject: str = ""
    issuer: str = ""

    def __repr__(self) -> str:
        return "PlatformToken(...)"

    @property
    def margin(self) -> float:
        """Seconds before the end at which the token is not used any more: 60, less for short-lived ones (FG-15)."""
        return min(60.0, (self.expires_at - self.issued_at) / 4)


class ClientCredentials:
    """Exchanges configured client credentials for a token; keeps nothing."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tls = ssl.create_default_context()  # costs tens of milliseconds: once, not per exchange

    async def obtain(self, facts: PlatformFacts, client: PlatformClient) -> PlatformToken:
        """Raises PlatformUnconfigured when the platform refuses us, PlatformDown when it cannot be asked."""
        if not client.secret or facts.token_auth not in _METHODS or not _private(facts.token_url):
            raise PlatformUnconfigured("the client credentials of this platform are not usable")
        started = self._clock()
        try:
            async with asyncio.timeout(_EXCHANGE_SECONDS):
                answer = await self._exchange(facts, client)
        except (OAuthError, httpx2.HTTPError, TimeoutError, OSError, ValueError, TypeError) as error:
            # The library's text may quote the endpoint's: only the kind of failure is told.
            log.warning("no token from platform %s: %s", facts.id, type(error).__name__)
            if _says_no(error):
                raise PlatformUnconfigured("the platform does not accept the configured client") from None
            raise PlatformDown("the sign-in service of the platform does not answer", retry_after=5) from None
        return read_answer(answer, started, facts.scopes)

    async def _exchange(self, facts: PlatformFacts, client: PlatformClient) -> dict[str, Any]:
        untyped: Any = AsyncOAuth2Client
        async with untyped(
            client_id=client.client_id,
            client_secret=client.secret,
            token_endpoint_auth_method=facts.token_auth,
            scope=facts.scopes or None,
            timeout=_EXCHANGE_SECONDS / 2,
            follow_redirects=False,  # a redirect would carry the secret to a place nobody configured
            verify=self._tls,
        ) as oauth:
            return dict(await oauth.fetch_token(facts.token_url, grant_type="client_credentials"))


def read_answer(answer: dict[str, Any], started: float, requested: str) -> PlatformToken:
    """Raises PlatformUnconfigured for an answer that holds no usable bearer token."""
    token, kind = answer.get("access_token"), answer.get("token_type", "bearer")
    usable = isinstance(token, str) and 0 < len(token) <= _MAX_TOKEN and token.isprintable()
    if not usable or not isinstance(kind, str) or kind.lower() != "bearer":
        raise PlatformUnconfigured("the platform gave no usable token")
    # A server that grants exactly what was asked may leave `scope` out (RFC 6749 §5.1).
    scope = answer.get("scope", requested)
    patient = answer.get("patient", "")
    return PlatformToken(
        access_token=str(token),
        scopes=tuple(scope.split()) if isinstance(scope, str) else (),
        patient=patient if isinstance(patient, str) else "",
        issued_at=started,
        expires_at=started + _life(answer.get("expires_in")),
    )


def _says_no(error: Exception) -> bool:
    """True for a refusal of our client, False for trouble that may pass."""
    if isinstance(error, httpx2.HTTPStatusError):
        return error.response.status_code < 500 and error.response.status_code != 429
    return isinstance(error, OAuthError) and error.error not in ("server_error", "temporarily_unavailable")


def _life(value: object) -> float:
    """Seconds from `expires_in`, which some servers send as text."""
    try:
        seconds = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return _UNSAID_SECONDS
    return min(max(seconds, 0.0), 86_400.0) if not math.isnan(seconds) else _UNSAID_SECONDS


def _private(url: str) -> bool:
    """Secrets leave only over TLS; a loopback token endpoint is for development."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
