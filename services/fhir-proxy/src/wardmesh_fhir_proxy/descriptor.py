"""The model of one platform file: what we know about a FHIR platform, its quirks included, all of it data."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

from wardmesh_fhir_proxy.healthlake import HealthLake

ID_PATTERN = re.compile(r"[a-z][a-z0-9\-]+")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
OWN_BASE = "base"

Kind = Literal["payer", "ehr", "sandbox", "government", "lab"]

# Every section forbids unknown members: a misspelt quirk must be an error, not silently without effect.


class Bases(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    patient: str = ""
    directory: str = ""
    bulk: str = ""


class OAuth(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    authorize_url: str = ""
    token_url: str = ""
    scopes: str = ""
    scopes_meaning: Literal["", "request", "supported"] = ""
    scopes_public: str = ""  # where a public and a confidential client ask for different ones
    scopes_confidential: str = ""
    scope_separator: Literal[" ", ",", "+"] = " "
    issuer: str = ""
    jwks_url: str = ""
    revocation_url: str = ""
    introspection_url: str = ""
    authorize_params: dict[str, str] = {}
    token_params: dict[str, str] = {}
    token_headers: dict[str, str] = {}
    token_seconds: int = 0  # life of an access token whose answer does not say it
    id_token: Literal["", "no-nonce", "unused"] = ""


class Auth(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    method: Literal["none", "client_credentials", "authorization_code"] = "authorization_code"
    token_auth: Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"] = "client_secret_basic"  # noqa: S105 - a method, not a secret
    alg: Literal["", "RS384", "ES384"] = ""
    confidential: bool = False
    client_id: str = ""  # a public registration that everyone may use
    assertion_audience: Literal["", "issuer"] = ""
    plain_basic: bool = False  # id and secret enter the Basic header without form encoding
    secret_hosts: tuple[str, ...] = ()  # token services (`host` or `host:port`) that all its organisations share


class Verification(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is known about the platform answering; shown to users unchanged."""

    status: Literal["verified", "unverified", "template"] = "template"
    verified_on: str = ""
    metadata_status: int = 0
    fhir_version: str = ""


class Rate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The platform's published budget; 0 = not said."""

    rps: float = 0.0
    hourly: int = 0
    hourly_per_principal: int = 0
    daily: int = 0
    poll_seconds: int = 0
    headers: tuple[str, ...] = ()

    @property
    def limited(self) -> bool:
        return bool(self.rps or self.hourly or self.hourly_per_principal or self.daily)


class PageLink(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Hosts (`host` or `host:port`) that page links may name besides the base's own."""

    hosts: tuple[str, ...] = ()


class ErrorRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A vendor's unusual answer: status and a text in the body say what it really means."""

    status: int
    body: str = ""
    means: Literal["re-authorise", "throttled", "deny", "not-found"]


class Operations(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    offered: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class Coverage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a payer says what it demands: CDS Hooks (CRD), `$questionnaire-package` (DTR), and its rules.

    Each is an address, `base` for the platform's own FHIR base, or "" where the platform does not offer it.
    """

    crd_url: str = ""
    crd_service: str = ""  # which of several services; "" = the first one for orders
    dtr_url: str = ""
    rules_url: str = ""

    @property
    def capabilities(self) -> tuple[str, ...]:
        return tuple(name for name, url in (("crd", self.crd_url), ("dtr", self.dtr_url)) if url)

    def at_own_base(self) -> Coverage:
        """For an organisation behind a vendor: only what lies at its own base is its own."""
        return Coverage(
            crd_url=OWN_BASE if self.crd_url == OWN_BASE else "",
            crd_service=self.crd_service,
            dtr_url=OWN_BASE if self.dtr_url == OWN_BASE else "",
            rules_url=OWN_BASE if self.rules_url == OWN_BASE else "",
        )


class Descriptor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One platform. `bases.patient` is the FHIR base; a platform without one cannot be called."""

    id: str
    name: str
    type: Kind
    bases: Bases = Bases()
    fhir_version: str = ""
    verification: Verification = Verification()
    oauth: OAuth = OAuth()
    auth: Auth = Auth()
    live: bool = False
    open: bool = False
    writes: bool = False
    served_by: str = ""
    sandbox_url: str = ""
    developer_portal: str = ""
    support_email: str = ""
    capabilities: tuple[str, ...] = ()
    implementation_guides: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    name_patterns: tuple[str, ...] = ()
    payer_ids: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    discovery: Literal["", "smart", "oidc", "static"] = ""
    pkce: Literal["", "none", "supported", "required", "refused"] = ""  # none: not announced; sent all the same
    aud: str = ""  # "" and base: the FHIR base; none: not sent; else this URL
    scope_dialect: Literal["", "v1", "v2", "both"] = ""
    required_scopes: tuple[str, ...] = ()
    refresh: Literal["", "none", "rotating", "stable"] = ""
    grant_expiry_field: str = ""
    tenant_fields: tuple[str, ...] = ()
    tenant: dict[str, str] = {}  # values for `{name}` in the URLs of this file; a deployment sets them
    private_network: bool = False  # sign-in may reach addresses that are not public
    accept: str = "application/fhir+json"
    content_type_aliases: tuple[str, ...] = ()
    headers: dict[str, str] = {}
    error_map: tuple[ErrorRule, ...] = ()
    required_search_params: dict[str, tuple[str, ...]] = {}
    max_count: int = 0
    operations: Operations = Operations()
    coverage: Coverage = Coverage()
    healthlake: HealthLake = HealthLake()
    if_none_exist: bool = True
    if_match_on_delete: bool = True
    handling_strict: bool = False
    compression: bool = True
    rate: Rate = Rate()
    page_link: PageLink = PageLink()
    timeout_seconds: float = 30.0
    max_concurrent: int = 64
    notes: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        if not ID_PATTERN.fullmatch(self.id):
            raise ValueError("`id` must match ^[a-z][a-z0-9-]+$")
        for name, url in (("bases.patient", self.bases.patient), ("bases.directory", self.bases.directory)):
            if url and not callable_url(url):
                raise ValueError(f"`{name}` must be an https URL (http only on the loopback interface)")
        for name in ("crd_url", "dtr_url", "rules_url"):
            url: str = getattr(self.coverage, name)
            if url not in ("", OWN_BASE) and not callable_url(url):
                raise ValueError(f"`coverage.{name}` must be base or an https URL")
        if self.healthlake.offered and not callable_url(self.healthlake.root(self.healthlake.region)):
            raise ValueError("`healthlake.endpoint` must be an https URL (http only on the loopback interface)")
        if self.healthlake.backend == "hapi" and self.healthlake.signing != "none":
            raise ValueError("`healthlake.signing` is for AWS: HAPI takes no signature")
        for url in self.healthlake.import_from:
            if not callable_url(url) or not url.endswith("/"):
                raise ValueError("`healthlake.import_from` must hold https URLs that end in /")
        if self.aud not in ("", "base", "none") and not callable_url(self.aud):
            raise ValueError("`aud` must be base, none or an https URL")
        for pattern in self.name_patterns:
            check_pattern("name_patterns", pattern)
        if self.timeout_seconds <= 0 or self.max_concurrent < 1:
            raise ValueError("`timeout_seconds` and `max_concurrent` must be positive")


def callable_url(url: str) -> bool:
    """True for https, and for http on loopback; never with user info, a query or a fragment."""
    parts = urlsplit(url)
    if not parts.hostname or parts.username or parts.query or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def check_pattern(field: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"`{field}` holds a pattern that does not compile") from error
