"""Environment names that users of other systems know: each works as written, beside ours, which wins (FG-17, SM-9, C-9)."""

# ruff: noqa: E501 - tables of cases read better in one line

from __future__ import annotations

import base64
import json
import os
from typing import Any

import pytest

from wardmesh_auth.settings import AuthSettings, PlatformClients, master_ring
from wardmesh_auth.settings import read_settings as read_auth
from wardmesh_common.settings import BadSettings, load
from wardmesh_gateway.settings import GatewaySettings, registered_platforms
from wardmesh_gateway.settings import read_settings as read_gateway
from wardmesh_policy.settings import ALIASES, PolicySettings

SECRET = {"FHIR_GATEWAY_SESSION_SECRET": "a secret of some length"}
AUTH = {
    "WARDMESH_ISSUER": "https://issuer.example",
    "WARDMESH_DATABASE_URL": "postgresql://auth@127.0.0.1:5432/auth",
    "WARDMESH_TOKEN_SEAL_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
}


def gateway(**names: str) -> GatewaySettings:
    return read_gateway({**SECRET, **names})


def auth(**names: str) -> AuthSettings:
    return read_auth({**AUTH, **names})


@pytest.mark.requirement("FG-17")
@pytest.mark.parametrize(
    ("name", "text", "default", "value", "ours"),
    [
        ("HOST", "10.0.0.1", "0.0.0.0", "10.0.0.1", "10.0.0.2"),
        ("PORT", "9001", 8000, 9001, "9002"),
        ("LOG_LEVEL", "WARN", "INFO", "WARN", "ERROR"),
        ("LOG_JSON", "false", True, False, "true"),
        ("DEBUG", "true", False, True, "false"),
        ("PUBLIC_URL", "https://a.test", "http://localhost:8000", "https://a.test", "https://b.test"),
        ("SESSION_COOKIE_SECURE", "false", True, False, "true"),
        ("CORS_ORIGINS", "https://a.test", "*", "https://a.test", "https://b.test"),
        ("TRUSTED_PROXY_CIDRS", "none", "", "none", "10.0.0.0/8"),
        ("MCP_ALLOWED_HOSTS", "a.test", "", "a.test", "b.test"),
        ("REDIS_URL", "redis://cache:6379", "", "redis://cache:6379", "rediss://cache"),
        ("REQUIRE_REDIS_TLS", "true", False, True, "false"),
    ],
)
def test_names_of_the_gateway(name: str, text: str, default: Any, value: Any, ours: str) -> None:
    field = {"MCP_ALLOWED_HOSTS": "allowed_hosts"}.get(name, name.lower())
    assert getattr(gateway(), field) == default
    assert getattr(gateway(**{f"FHIR_GATEWAY_{name}": text}), field) == value
    both = gateway(**{f"FHIR_GATEWAY_{name}": text, f"WARDMESH_{field.upper()}": ours})
    assert str(getattr(both, field)).lower() == ours.lower()


@pytest.mark.requirement("FG-17")
@pytest.mark.parametrize(
    ("name", "text", "default", "value", "ours"),
    [
        ("OAUTH_REDIRECT_URI", "https://a.test/cb", "http://localhost:8000/auth/callback", "https://a.test/cb", "https://b.test/cb"),
        ("SESSION_MAX_AGE", "60", 3600, 60, "61"),
        ("PUBLIC_URL", "https://a.test", "http://localhost:8000", "https://a.test", "https://b.test"),
        ("LOG_LEVEL", "DEBUG", "INFO", "DEBUG", "ERROR"),
    ],
)  # fmt: skip
def test_names_of_auth(name: str, text: str, default: Any, value: Any, ours: str) -> None:
    field = {"OAUTH_REDIRECT_URI": "redirect_uri"}.get(name, name.lower())
    assert getattr(auth(), field) == default
    assert getattr(auth(**{f"FHIR_GATEWAY_{name}": text}), field) == value
    both = auth(**{f"FHIR_GATEWAY_{name}": text, f"WARDMESH_{name}": ours})
    assert str(getattr(both, field)) == ours


@pytest.mark.requirement("FG-17")
def test_keys_secrets_and_clients_of_platforms() -> None:
    passphrase, other = "a passphrase of more than 32 characters", "another passphrase of 32 characters"
    ring = auth(FHIR_GATEWAY_MASTER_KEY=passphrase, FHIR_GATEWAY_MASTER_KEYS=json.dumps([other]))
    assert len(master_ring(ring)) == 3
    assert len(master_ring(auth())) == 1
    with pytest.raises(BadSettings, match="MASTER_KEY"):
        auth(FHIR_GATEWAY_MASTER_KEY="too short")
    with pytest.raises(BadSettings, match="FHIR_GATEWAY_SESSION_SECRET"):
        read_gateway({})
    assert read_gateway({"FHIR_GATEWAY_DEBUG": "true"}).ring()
    names = {"FHIR_GATEWAY_PLATFORM_AETNA_CLIENT_ID": "id", "FHIR_GATEWAY_PLATFORM_AETNA_CLIENT_SECRET": "s"}
    client = PlatformClients(names).of("aetna")
    assert client is not None
    assert (client.client_id, client.secret) == ("id", "s")
    assert registered_platforms(names) == {"AETNA"}


@pytest.mark.requirement("FG-17")
def test_redirects_lead_to_allowed_hosts_only() -> None:
    assert auth(FHIR_GATEWAY_OAUTH_ALLOWED_HOSTS="localhost, a.test")
    named = {"FHIR_GATEWAY_OAUTH_ALLOWED_HOSTS": "a.test"}
    with pytest.raises(BadSettings, match="OAUTH_ALLOWED_HOSTS"):
        auth(**named)
    assert auth(**named, FHIR_GATEWAY_OAUTH_REDIRECT_URI="https://A.test/auth/callback")
    with pytest.raises(BadSettings, match="OAUTH_ALLOWED_HOSTS"):
        auth(**named, WARDMESH_PUBLIC_URL="https://a.test", SMART_REDIRECT_URI="https://evil.test/")


@pytest.mark.requirement("FG-17", "FG-33")
def test_a_redis_url_is_refused_without_tls_where_tls_is_required() -> None:
    plain = {"FHIR_GATEWAY_REDIS_URL": "redis://CANARY:6379", "FHIR_GATEWAY_REQUIRE_REDIS_TLS": "true"}
    with pytest.raises(BadSettings, match="rediss://") as raised:
        gateway(**plain)
    assert "CANARY" not in str(raised.value)
    assert gateway(**plain | {"FHIR_GATEWAY_REDIS_URL": "rediss://cache"}).redis_url


@pytest.mark.requirement("FG-17")
@pytest.mark.parametrize("level", ["CANARY", "", "TRACE"])
def test_an_unknown_log_level_is_told_at_the_start(level: str) -> None:
    with pytest.raises(BadSettings, match="WARDMESH_LOG_LEVEL") as raised:
        gateway(FHIR_GATEWAY_LOG_LEVEL=level)
    assert "CANARY" not in str(raised.value)


@pytest.mark.requirement("SM-9")
def test_names_of_the_smart_server() -> None:
    smart = {"SMART_ISS": "https://fhir.test/r4", "SMART_CLIENT_ID": "sm", "SMART_SCOPE": "openid user/*.rs"}
    found = auth(**smart, SMART_REDIRECT_URI="https://a.test/auth/callback")
    assert (found.smart_iss, found.smart_client_id, found.smart_scope) == tuple(smart.values())
    assert found.smart_redirect_uri == "https://a.test/auth/callback"
    fallback = {"FHIR_BASE_URL": "https://base.test/r4", "SMART_CLIENT_ID": "sm"}
    assert auth(**fallback).smart_iss == gateway(**fallback).smart_issuer == "https://base.test/r4"
    assert auth(**fallback | smart).smart_iss == smart["SMART_ISS"]
    assert gateway(**fallback, SMART_ISS=smart["SMART_ISS"]).smart_issuer == smart["SMART_ISS"]
    assert gateway(ALLOWED_ORIGINS="https://a.test,https://b.test").origins == ("https://a.test", "https://b.test")
    assert gateway(LOG_LEVEL="ERROR").log_level == auth(LOG_LEVEL="ERROR").log_level == "ERROR"


@pytest.mark.requirement("SM-9")
def test_the_environment_is_one_of_three_and_production_allows_nothing_unsafe() -> None:
    for name in ("development", "staging", "production"):
        assert gateway(ENVIRONMENT=name).environment == name
    with pytest.raises(BadSettings, match="ENVIRONMENT"):
        gateway(ENVIRONMENT="prod")
    for unsafe in ({"FHIR_GATEWAY_DEBUG": "true"}, {"FHIR_GATEWAY_SESSION_COOKIE_SECURE": "false"}):
        assert gateway(ENVIRONMENT="staging", **unsafe)
        with pytest.raises(BadSettings, match="ENVIRONMENT=production"):
            gateway(ENVIRONMENT="production", **unsafe)
    with pytest.raises(BadSettings, match="ENVIRONMENT=production"):
        auth(ENVIRONMENT="production", FHIR_GATEWAY_DEBUG="true")


@pytest.mark.requirement("SM-9")
def test_the_address_of_the_policy_engine_may_be_that_of_its_http_api() -> None:
    url = {"CERBOS_HTTP_API_URL": "http://pdp.test:3592"}
    assert load(PolicySettings, url, aliases=ALIASES).cerbos_target == "http://pdp.test:3592"
    both = {**url, "WARDMESH_CERBOS_TARGET": "unix:/run/pdp.sock"}
    assert load(PolicySettings, both, aliases=ALIASES).cerbos_target == "unix:/run/pdp.sock"
