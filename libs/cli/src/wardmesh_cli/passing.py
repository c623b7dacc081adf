"""Which names of FG-17 and SM-9 one command hands on from its own environment, and to which service (C-9)."""

from __future__ import annotations

from collections.abc import Mapping

_PREFIX = "FHIR_GATEWAY_"
_EVERYONE = frozenset(
    {"LOG_LEVEL", "ENVIRONMENT", *(f"{_PREFIX}{name}" for name in ("LOG_LEVEL", "LOG_JSON", "DEBUG"))}
)
_GATEWAY = (
    "SESSION_SECRET",
    "SESSION_COOKIE_SECURE",
    "CORS_ORIGINS",
    "TRUSTED_PROXY_CIDRS",
    "MCP_ALLOWED_HOSTS",
    "REDIS_URL",
    "REQUIRE_REDIS_TLS",
)
_AUTH = ("MASTER_KEY", "MASTER_KEYS", "SESSION_MAX_AGE", "OAUTH_REDIRECT_URI", "OAUTH_ALLOWED_HOSTS")
_SMART = frozenset({"SMART_ISS", "FHIR_BASE_URL", "SMART_CLIENT_ID"})
_NAMES: dict[str, frozenset[str]] = {
    "gateway": _SMART | {f"{_PREFIX}{name}" for name in _GATEWAY} | {"ALLOWED_ORIGINS"},
    "auth": _SMART
    | {f"{_PREFIX}{name}" for name in _AUTH}
    | {"SMART_CLIENT_SECRET", "SMART_SCOPE", "SMART_REDIRECT_URI"},
    "policy": frozenset({"CERBOS_HTTP_API_URL"}),
}
# What this command would say itself gives way to a listed name that is set.
_INSTEAD = {
    "FHIR_GATEWAY_LOG_JSON": "WARDMESH_LOG_JSON",
    "FHIR_GATEWAY_MASTER_KEY": "WARDMESH_MASTER_KEY_FILE",
    "FHIR_GATEWAY_SESSION_SECRET": "WARDMESH_GATEWAY_KEYS_FILE",
    "FHIR_GATEWAY_TRUSTED_PROXY_CIDRS": "WARDMESH_TRUSTED_PROXY_CIDRS",
    "CERBOS_HTTP_API_URL": "WARDMESH_CERBOS_TARGET",
}


def passes(service: str, name: str) -> bool:
    return name in _EVERYONE or name in _NAMES.get(service, frozenset())


def without_instead(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a service in which every listed name that is set counts."""
    dropped = {ours for name, ours in _INSTEAD.items() if name in environ}
    return {name: value for name, value in environ.items() if name not in dropped}
