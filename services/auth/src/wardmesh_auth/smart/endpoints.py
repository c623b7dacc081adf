"""Where a platform signs people in: read from its SMART configuration, its CapabilityStatement, or our catalogue."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from wardmesh_common.questions import PlatformFacts

Source = Literal["smart-configuration", "openid-configuration", "metadata", "catalogue"]

_OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"
_MEMBERS = {
    "authorize": "authorization_endpoint",
    "token": "token_endpoint",
    "revocation": "revocation_endpoint",
    "introspection": "introspection_endpoint",
    "jwks": "jwks_uri",
    "issuer": "issuer",
    "registration": "registration_endpoint",
    "management": "management_endpoint",
}
_EXTENSIONS = {
    "authorize": "authorize",
    "token": "token",
    "revoke": "revocation",
    "introspect": "introspection",
    "register": "registration",
    "manage": "management",
}
_MAX_ITEMS = 1000


class Endpoints(Struct, frozen=True, kw_only=True):
    authorize: str = ""
    token: str = ""
    revocation: str = ""
    introspection: str = ""
    jwks: str = ""
    issuer: str = ""
    registration: str = ""
    management: str = ""
    capabilities: tuple[str, ...] = ()
    code_challenge_methods: tuple[str, ...] = ()
    token_auth_methods: tuple[str, ...] = ()
    assertion_algs: tuple[str, ...] = ()
    scopes_supported: tuple[str, ...] = ()
    issuer_in_response: bool = False  # RFC 9207: an answer without `iss` is not this server's
    source: Source = "catalogue"

    @property
    def urls(self) -> tuple[str, ...]:
        """Every address that we or the person's browser would open."""
        found = (self.authorize, self.token, self.revocation, self.introspection, self.jwks)
        return tuple(url for url in found if url)


def from_document(document: dict[str, Any], source: Source) -> Endpoints:
    """From `.well-known/smart-configuration` or OpenID metadata. Members of a wrong type count as absent."""
    texts = {name: _text(document.get(member)) for name, member in _MEMBERS.items()}
    return Endpoints(
        **texts,
        capabilities=_texts(document.get("capabilities")),
        code_challenge_methods=_texts(document.get("code_challenge_methods_supported")),
        token_auth_methods=_texts(document.get("token_endpoint_auth_methods_supported")),
        assertion_algs=_texts(document.get("token_endpoint_auth_signing_alg_values_supported")),
        scopes_supported=_texts(document.get("scopes_supported")),
        issuer_in_response=document.get("authorization_response_iss_parameter_supported") is True,
        source=source,
    )


def from_capability_statement(document: dict[str, Any]) -> Endpoints:
    """From the `oauth-uris` extension that SMART 1 put into `rest.security`."""
    found: dict[str, str] = {}
    for rest in _objects(document.get("rest")):
        security = rest.get("security")
        for extension in _objects(security.get("extension") if isinstance(security, dict) else None):
            if extension.get("url") != _OAUTH_URIS:
                continue
            for part in _objects(extension.get("extension")):
                name = _EXTENSIONS.get(_text(part.get("url")))
                if name:
                    found.setdefault(name, _text(part.get("valueUri")))
    return msgspec.structs.replace(Endpoints(source="metadata"), **found)


def from_catalogue(facts: PlatformFacts) -> Endpoints:
    quirks = facts.sign_in
    return Endpoints(
        authorize=facts.authorize_url,
        token=facts.token_url,
        revocation=quirks.revocation_url,
        introspection=quirks.introspection_url,
        jwks=quirks.jwks_url,
        issuer=quirks.issuer,
        source="catalogue",
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= 2048 else ""


def _texts(value: object) -> tuple[str, ...]:
    return tuple(v for v in value[:_MAX_ITEMS] if isinstance(v, str)) if isinstance(value, list) else ()


def _objects(value: object) -> list[dict[str, Any]]:
    return [v for v in value[:_MAX_ITEMS] if isinstance(v, dict)] if isinstance(value, list) else []
