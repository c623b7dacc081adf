"""The gateway's settings, from WARDMESH_* or the FHIR_GATEWAY_* names that FG-17 lists (C-9)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import field

from wardmesh_common.settings import BadSettings, BusSettings, load
from wardmesh_gateway.caller import TrustedProxies

KEY_BYTES = 32

ALIASES: dict[str, str | tuple[str, ...]] = {
    "host": "FHIR_GATEWAY_HOST",
    "port": "FHIR_GATEWAY_PORT",
    "public_url": "FHIR_GATEWAY_PUBLIC_URL",
    "cors_origins": ("FHIR_GATEWAY_CORS_ORIGINS", "ALLOWED_ORIGINS"),
    "trusted_proxy_cidrs": "FHIR_GATEWAY_TRUSTED_PROXY_CIDRS",
    "allowed_hosts": "FHIR_GATEWAY_MCP_ALLOWED_HOSTS",
    "session_secret": "FHIR_GATEWAY_SESSION_SECRET",
    "session_cookie_secure": "FHIR_GATEWAY_SESSION_COOKIE_SECURE",
    "smart_issuer": ("SMART_ISS", "FHIR_BASE_URL"),
    "redis_url": "FHIR_GATEWAY_REDIS_URL",
    "require_redis_tls": "FHIR_GATEWAY_REQUIRE_REDIS_TLS",
}


class GatewaySettings(BusSettings, kw_only=True):
    """Lists are separated by commas or blanks; `gateway_keys` is a JSON list of base64url keys, the first one seals."""

    host: str = "0.0.0.0"  # noqa: S104 - FG-17: the only public face
    port: int = 8000
    listen_fds: dict[int, int] = field(default_factory=dict)  # port -> inherited listening socket
    public_url: str = "http://localhost:8000"
    issuer: str = ""
    issuer_wait_seconds: float = 15.0  # how long a start waits for the issuer's keys
    audience: str = ""  # "" = {public_url}/mcp
    audiences: tuple[str, ...] = ()  # further accepted audiences, JSON list
    token_types: tuple[str, ...] = ("at+jwt",)
    allowed_hosts: str = ""
    cors_origins: str = "*"
    trusted_proxy_cidrs: str = ""
    rate_limit: int = 100
    callback_limit: int = 20  # of one address (FG-15)
    rate_window_seconds: float = 60.0
    gateway_keys: str = ""
    session_secret: str = ""  # a key ring of one is derived from it when `gateway_keys` is empty
    session_cookie_secure: bool = True  # off only for local HTTP (FG-14)
    ask_about_tokens: bool = True  # tokens that only auth can judge: opaque ones, those of local accounts
    redis_url: str = ""
    require_redis_tls: bool = False
    home_platform: str = "store"  # whose patient ids are meant where no platform is named, as in policy
    smart_issuer: str = ""  # FHIR base of the platform of the SMART server's tools (SM-9)
    smart_platform: str = "store"  # its id, where no base is named or several platforms have it
    conformance_port: int = 0
    max_body_bytes: int = 10 * 1024 * 1024
    anonymous_open_platforms: bool = True
    deadline_seconds: float = 32.0
    max_in_flight: int = 512  # calls that wait for an answer at the same time

    @property
    def base(self) -> str:
        return self.public_url.rstrip("/")

    @property
    def resource(self) -> str:
        """The one audience of every token for this gateway (OA-4)."""
        return self.audience or f"{self.base}/mcp"

    @property
    def hosts(self) -> tuple[str, ...]:
        return words(self.allowed_hosts)

    @property
    def origins(self) -> tuple[str, ...]:
        return words(self.cors_origins)

    @property
    def proxies(self) -> tuple[str, ...]:
        return words(self.trusted_proxy_cidrs)

    def ring(self) -> list[bytes]:
        """The key ring. Raises BadSettings; its text never shows a key."""
        try:
            texts = msgspec.json.decode(self.gateway_keys or "[]", type=list[str])
            keys = [base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) for text in texts]
        except (msgspec.DecodeError, msgspec.ValidationError, binascii.Error, ValueError):
            raise BadSettings("WARDMESH_GATEWAY_KEYS is not a JSON list of base64url keys") from None
        if not keys and self.session_secret:
            return [_stretched(self.session_secret)]
        if not keys and self.debug:
            return [secrets.token_bytes(KEY_BYTES)]
        if not keys or any(len(key) < KEY_BYTES for key in keys):
            raise BadSettings(
                f"WARDMESH_GATEWAY_KEYS needs at least one key of {KEY_BYTES} bytes, "
                "or FHIR_GATEWAY_SESSION_SECRET has to be set (only with DEBUG=true neither)"
            )
        return keys


@lru_cache(maxsize=4)
def _stretched(secret: str) -> bytes:
    """One secret of any length as a key, the same on every replica; guessing it is made slow."""
    return hashlib.scrypt(secret.encode(), salt=b"wardmesh gateway keys v1", n=2**14, r=8, p=1, dklen=KEY_BYTES)


def words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[,\s]+", text.strip()) if word)


def read_settings(environ: Mapping[str, str]) -> GatewaySettings:
    """Raises BadSettings before anything is opened."""
    settings = load(GatewaySettings, environ, aliases=ALIASES)
    parts = urlsplit(settings.public_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadSettings("WARDMESH_PUBLIC_URL is not an http or https URL")
    positive: dict[str, Any] = {
        "WARDMESH_RATE_LIMIT": settings.rate_limit,
        "WARDMESH_CALLBACK_LIMIT": settings.callback_limit,
        "WARDMESH_RATE_WINDOW_SECONDS": settings.rate_window_seconds,
        "WARDMESH_MAX_BODY_BYTES": settings.max_body_bytes,
        "WARDMESH_DEADLINE_SECONDS": settings.deadline_seconds,
        "WARDMESH_MAX_IN_FLIGHT": settings.max_in_flight,
    }
    for name, value in positive.items():
        if value <= 0:
            raise BadSettings(f"{name} must be greater than 0")
    try:
        TrustedProxies(settings.proxies)
    except ValueError:
        raise BadSettings("WARDMESH_TRUSTED_PROXY_CIDRS is not a list of networks") from None
    _check_environment(settings)
    if settings.redis_url and settings.require_redis_tls and not settings.redis_url.startswith("rediss://"):
        raise BadSettings("FHIR_GATEWAY_REDIS_URL must begin with rediss:// because REQUIRE_REDIS_TLS is on")
    settings.ring()
    return settings


def _check_environment(settings: GatewaySettings) -> None:
    if settings.environment not in ("", "development", "staging", "production"):
        raise BadSettings("ENVIRONMENT must be development, staging or production")
    if settings.environment == "production" and not settings.session_cookie_secure:
        raise BadSettings("ENVIRONMENT=production goes with SESSION_COOKIE_SECURE=true only")


_client_id = re.compile(r"(?:WARDMESH|FHIR_GATEWAY)_PLATFORM_([A-Z0-9_]+)_CLIENT_ID(?:_FILE)?").fullmatch


def registered_platforms(environ: Mapping[str, str]) -> frozenset[str]:
    """Platform ids, upper case with `_`, for which this deployment names a client id (FG-2); its value stays away."""
    return frozenset(found[1] for name in environ if (found := _client_id(name)) and environ[name])
