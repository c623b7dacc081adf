"""Settings of auth, and the client credentials of platforms, whose variable names hold the platform's id."""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, field

from wardmesh_auth.accounts.seed import SeedAccount
from wardmesh_auth.bounded import Bounded
from wardmesh_auth.database import SCHEMES
from wardmesh_auth.vault import master_key
from wardmesh_common.local_tokens import MIN_SECRET
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.settings import PREFIX, BadSettings, BusSettings, load
from wardmesh_common.token_seal import parse_key

_PREFIXES = (PREFIX, "FHIR_GATEWAY_")  # ours wins (C-9)
_CLIENT_SECONDS = 60.0
_MAX_CLIENTS = 10_000
CLIENT_METHODS = ("", "none", "client_secret_basic", "client_secret_post", "private_key_jwt")
_ALIASES = {
    "master_key": "FHIR_GATEWAY_MASTER_KEY",
    "master_keys": "FHIR_GATEWAY_MASTER_KEYS",
    "session_max_age": "FHIR_GATEWAY_SESSION_MAX_AGE",
    "public_url": "FHIR_GATEWAY_PUBLIC_URL",
    "oauth_redirect_uri": "FHIR_GATEWAY_OAUTH_REDIRECT_URI",
    "smart_iss": "SMART_ISS",
    "smart_client_id": "SMART_CLIENT_ID",
    "smart_client_secret": "SMART_CLIENT_SECRET",
    "smart_scope": "SMART_SCOPE",
    "smart_redirect_uri": "SMART_REDIRECT_URI",
    "oauth_allowed_hosts": "FHIR_GATEWAY_OAUTH_ALLOWED_HOSTS",
    "secret_key": "SECRET_KEY",
}
# What the SMART server of SM-1 says a person is, once its identity token is verified (SM-7).
_SMART_ROLES = {"Practitioner": ("practitioner",), "Patient": ("patient",)}

log = logging.getLogger("wardmesh.auth")


class KeySettings(BusSettings, kw_only=True):
    """What it takes to read what is stored: for the service and for the commands that rotate keys."""

    database_url: str
    token_seal_key: str
    master_key: str = ""
    master_keys: tuple[str, ...] = ()  # ring for rotation: the first seals, all open


class AuthSettings(KeySettings, kw_only=True):
    issuer: str
    audience: str = ""
    audiences: tuple[str, ...] = ()  # further accepted audiences, JSON list
    public_url: str = "http://localhost:8000"
    jwks_uri: str = ""  # "" = discovered from the issuer
    issuer_wait_seconds: float = 15.0  # how long a start waits for the issuer's keys
    catalogue_wait_seconds: float = 10.0  # how long a start waits for the catalogue of platforms
    token_types: tuple[str, ...] = ("at+jwt",)
    clock_skew_seconds: float = 30.0
    role_claims: tuple[str, ...] = ("roles",)  # dotted paths into the claims
    role_map: dict[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # claim value -> roles; empty = the value is the role
    agents_host: str = ""  # where the DIDs of agents live; "" = the host of public_url
    agent_organisation: str = ""  # set: a further part of every agent's id
    developer_did: str = ""  # of who made the agents that come here
    client_agents: dict[str, str] = field(default_factory=dict)  # client id -> how its agent id must begin
    session_max_age: int = 3600
    session_idle_seconds: int = 3600
    break_glass_at_once: int = 5  # emergency accesses that one person may have open
    break_glass_per_day: int = 20  # and open in 24 hours
    anonymous_open_platforms: bool = True
    station_limit: int = 512
    oauth_redirect_uri: str = ""  # "" = {public_url}/auth/callback
    web_client_id: str = "wardmesh-web"  # our registration at the issuer, for people in a browser
    web_client_secret: str = ""
    web_scopes: str = "openid fhir.read fhir.write"
    smart_iss: str = ""  # set: people sign in at this SMART server instead (SM-1)
    smart_client_id: str = ""
    smart_client_secret: str = ""
    smart_scope: str = ""
    smart_redirect_uri: str = ""
    smart_platform: str = ""  # which one, where several platforms of the catalogue have that FHIR base
    oauth_allowed_hosts: str = ""  # set: redirect URIs lead to these hosts only, separated by commas or blanks
    # Where the ids that a SMART server tells of a person mean that person, as policy's setting of this name says.
    home_platforms: tuple[str, ...] = ("store",)
    smart_roles: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(_SMART_ROLES))
    secret_key: str = ""  # signs and verifies tokens of local accounts (SH-9); "" = there are none
    accounts: tuple[SeedAccount, ...] = ()  # JSON; those that are not there yet are added at the start
    introspection_url: str = ""  # set: tokens that are no JWT are asked about there (OA-4)
    introspection_client_id: str = ""
    introspection_client_secret: str = ""

    @property
    def redirect_uri(self) -> str:
        return self.oauth_redirect_uri or f"{self.public_url.rstrip('/')}/auth/callback"

    @property
    def all_audiences(self) -> tuple[str, ...]:
        return (self.audience or f"{self.public_url.rstrip('/')}/mcp", *self.audiences)


class MigrateSettings(Struct, kw_only=True):
    database_url: str


class PlatformClient(Struct, frozen=True):
    """Our registration at one platform."""

    client_id: str
    secret: str = ""
    private_key: str = ""  # PEM or JWK of this registration alone; "" = our common ring signs
    method: str = ""  # how the client authenticates; "" = what the platform and these credentials lead to
    lent: bool = False  # it is the vendor's, used at an organisation that a list names

    def __repr__(self) -> str:
        return "PlatformClient(...)"


def read_settings(environ: Mapping[str, str]) -> AuthSettings:
    """Raises BadSettings, which names the variable and never its value."""
    settings = load(AuthSettings, environ, aliases=_ALIASES)
    _check_keys(settings)
    if not 0 <= settings.clock_skew_seconds <= 120:
        raise BadSettings("WARDMESH_CLOCK_SKEW_SECONDS must be between 0 and 120")
    if min(settings.break_glass_at_once, settings.break_glass_per_day) < 1:
        raise BadSettings("WARDMESH_BREAK_GLASS_AT_ONCE and WARDMESH_BREAK_GLASS_PER_DAY must be at least 1")
    if settings.secret_key and len(settings.secret_key) < MIN_SECRET:
        raise BadSettings(f"SECRET_KEY must have at least {MIN_SECRET} characters")
    _check_redirects(settings)
    if settings.smart_client_id and not settings.smart_iss:
        return msgspec.structs.replace(settings, smart_iss=environ.get("FHIR_BASE_URL", ""))  # SM-9
    return settings


def _check_redirects(settings: AuthSettings) -> None:
    """Where platforms may send people back to (FG-17)."""
    allowed = {host.lower() for host in re.split(r"[,\s]+", settings.oauth_allowed_hosts) if host}
    used = {urlsplit(uri).hostname for uri in (settings.redirect_uri, settings.smart_redirect_uri) if uri}
    if allowed and not used <= allowed:
        raise BadSettings("FHIR_GATEWAY_OAUTH_ALLOWED_HOSTS does not name the host of every redirect URI")


def read_key_settings(environ: Mapping[str, str]) -> KeySettings:
    """Raises BadSettings."""
    settings = load(KeySettings, environ, aliases={k: v for k, v in _ALIASES.items() if k.startswith("master")})
    _check_keys(settings)
    return settings


def _check_keys(settings: KeySettings) -> None:
    _checked("WARDMESH_TOKEN_SEAL_KEY", lambda: parse_key(settings.token_seal_key))
    for key in (settings.master_key, *settings.master_keys):
        if key:
            _checked("WARDMESH_MASTER_KEY", lambda key=key: master_key(key))
    if settings.database_url.partition("://")[0] not in SCHEMES:
        raise BadSettings("WARDMESH_DATABASE_URL must begin with postgresql://")


def master_ring(settings: KeySettings) -> tuple[bytes, ...]:
    """The ring of master keys, newest first, and last the key of a deployment that has none.

    So nothing is ever stored in the clear, and what was stored before a master key was set is still read (FG-16).
    """
    texts = (*settings.master_keys, settings.master_key)
    own = hmac.digest(parse_key(settings.token_seal_key), b"wardmesh storage without a master key", "sha256")
    return (*(master_key(text) for text in dict.fromkeys(texts) if text), own)


def has_master_key(settings: KeySettings) -> bool:
    return bool(settings.master_key or any(settings.master_keys))


class PlatformClients:
    """`PLATFORM_{ID}_CLIENT_ID`, `_CLIENT_SECRET`, `_PRIVATE_KEY` and `_AUTH_METHOD`, with either prefix, each also
    as `_FILE` (FG-17)."""

    def __init__(self, environ: Mapping[str, str], settings: AuthSettings | None = None) -> None:
        self._environ = environ
        self._smart_iss = settings.smart_iss.rstrip("/") if settings else ""
        self._smart = (
            PlatformClient(settings.smart_client_id, settings.smart_client_secret)
            if settings and settings.smart_client_id
            else None
        )
        # Remembered for a while: a call must not read files, and a secret that was rotated must count soon.
        self._known: Bounded[str, tuple[PlatformClient | None]] = Bounded(_MAX_CLIENTS)

    def of(self, platform: str) -> PlatformClient | None:
        """None when none is configured, or its file cannot be read: that is logged and mended without a restart."""
        known = self._known.get(platform)
        if known is None:
            known = (self._read(platform),)
            self._known.put(platform, known, _CLIENT_SECONDS)
        return known[0]

    def at(self, facts: PlatformFacts) -> PlatformClient | None:
        """As `of`; else the registration that the platform offers to everyone."""
        everyone = facts.sign_in.client_id
        own = self.of(facts.id) or (self._lent(facts.vendor) if facts.vendor else None)
        return own or self._of_smart(facts) or (PlatformClient(everyone) if everyone else None)

    def _of_smart(self, facts: PlatformFacts) -> PlatformClient | None:
        """The client of SM-9 renews what it was granted (SM-11)."""
        return self._smart if self._smart_iss and facts.fhir_base_url.rstrip("/") == self._smart_iss else None

    def _lent(self, vendor: str) -> PlatformClient | None:
        client = self.of(vendor)
        return msgspec.structs.replace(client, lent=True) if client else None

    def _read(self, platform: str) -> PlatformClient | None:
        name = platform.upper().replace("-", "_")
        try:
            client_id = self._value(f"PLATFORM_{name}_CLIENT_ID")
            secret = self._value(f"PLATFORM_{name}_CLIENT_SECRET")
            key = self._value(f"PLATFORM_{name}_PRIVATE_KEY")
            method = self._value(f"PLATFORM_{name}_AUTH_METHOD")
        except (OSError, ValueError):
            log.warning("the client of platform %s: its file cannot be read", platform)
            return None
        if method not in CLIENT_METHODS:
            log.warning("the client of platform %s: its authentication method is not known", platform)
            return None
        return PlatformClient(client_id, secret, key, method) if client_id else None

    def _value(self, name: str) -> str:
        for prefix in _PREFIXES:
            if value := self._environ.get(prefix + name, ""):
                return value
            if path := self._environ.get(f"{prefix}{name}_FILE", ""):
                return Path(path).read_text(encoding="utf-8").strip()
        return ""


def _checked(name: str, check: Callable[[], object]) -> None:
    try:
        check()
    except ValueError as error:
        raise BadSettings(f"{name}: {error}") from None
