"""How one platform wants to be signed in at: the quirks of its token service, all of them data."""

from __future__ import annotations

from msgspec import Struct


class SignInFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Part of PlatformFacts. The defaults are what SMART App Launch says; a field tells where a platform differs."""

    discovery: str = ""  # "" and smart: documents of the FHIR base; oidc: of `issuer`; static: only the catalogue
    issuer: str = ""  # who signs identity tokens, where no document says it
    jwks_url: str = ""
    revocation_url: str = ""
    introspection_url: str = ""
    client_id: str = ""  # a public registration that everyone may use (open sandboxes)
    confidential: bool = False  # a client without secret or key is refused there
    alg: str = ""  # of client assertions: RS384 or ES384; "" = what both sides can
    assertion_audience: str = ""  # "" = the token endpoint; issuer
    plain_basic: bool = False  # client id and secret go into the Basic header without form encoding
    pkce: str = ""  # refused: a challenge is an error there; anything else: S256 always
    aud: str = ""  # "" and base: the FHIR base; none: not sent; else this very value
    scopes_public: str = ""  # what a public client asks for, where it differs
    scopes_confidential: str = ""
    required_scopes: tuple[str, ...] = ()
    scope_dialect: str = ""  # v1 | v2 | both
    scope_separator: str = " "
    authorize_params: tuple[tuple[str, str], ...] = ()
    token_params: tuple[tuple[str, str], ...] = ()
    token_headers: tuple[tuple[str, str], ...] = ()
    refresh: str = ""  # none: no refresh tokens; stable: the first one stays valid; rotating: each works once
    token_seconds: int = 0  # life of an access token whose answer does not say it
    grant_expiry_field: str = ""  # member of the token answer that tells when the whole grant ends
    id_token: str = ""  # "" = verified; no-nonce: verified, but the platform drops the nonce; unused
    secret_hosts: tuple[str, ...] = ()  # of an organisation: where the vendor's client secret may be shown
    private_network: bool = False  # the operator's own network: addresses that are not public are fine
