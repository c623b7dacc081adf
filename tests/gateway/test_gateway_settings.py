"""The gateway's settings: names, aliases, and faults that are told before anything is opened (C-9)."""

from __future__ import annotations

import json

import pytest

from wardmesh_common.settings import BadSettings
from wardmesh_gateway.settings import read_settings, registered_platforms

KEY = "A" * 43
GOOD = {"WARDMESH_GATEWAY_KEYS": json.dumps([KEY])}


def test_the_defaults_are_the_documented_ones() -> None:
    settings = read_settings(GOOD)
    assert (settings.port, settings.rate_limit, settings.rate_window_seconds) == (8000, 100, 60.0)
    assert (settings.max_body_bytes, settings.deadline_seconds) == (10 * 1024 * 1024, 32.0)
    assert settings.resource == "http://localhost:8000/mcp"
    assert settings.anonymous_open_platforms
    assert settings.conformance_port == 0
    assert [len(key) for key in settings.ring()] == [32]


@pytest.mark.parametrize("separator", [",", " ", ", "])
def test_lists_may_be_separated_by_commas_or_blanks(separator: str) -> None:
    settings = read_settings({**GOOD, "WARDMESH_CORS_ORIGINS": separator.join(["https://a.test", "https://b.test"])})
    assert settings.origins == ("https://a.test", "https://b.test")


def test_the_names_of_fhir_gateway_hold_and_ours_win() -> None:
    environ = {**GOOD, "FHIR_GATEWAY_PORT": "9001", "FHIR_GATEWAY_TRUSTED_PROXY_CIDRS": "none"}
    assert read_settings(environ).port == 9001
    assert read_settings(environ).proxies == ("none",)
    assert read_settings({**environ, "WARDMESH_PORT": "9002"}).port == 9002


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WARDMESH_GATEWAY_KEYS", ""),
        ("WARDMESH_GATEWAY_KEYS", "[]"),
        ("WARDMESH_GATEWAY_KEYS", "CANARY"),
        ("WARDMESH_GATEWAY_KEYS", '["CANARY"]'),
        ("WARDMESH_PUBLIC_URL", "ftp://CANARY"),
        ("WARDMESH_RATE_LIMIT", "0"),
        ("WARDMESH_DEADLINE_SECONDS", "-1"),
        ("WARDMESH_TRUSTED_PROXY_CIDRS", "10.0.0.0/8,CANARY"),
    ],
)
def test_a_fault_names_the_variable_and_never_its_value(name: str, value: str) -> None:
    with pytest.raises(BadSettings, match=name) as raised:
        read_settings({**GOOD, name: value})
    assert "CANARY" not in str(raised.value)


def test_a_platform_counts_as_registered_when_a_client_id_is_named() -> None:
    environ = {
        "WARDMESH_PLATFORM_AETNA_CLIENT_ID": "x",
        "FHIR_GATEWAY_PLATFORM_EPIC_SANDBOX_PATIENT_CLIENT_ID": "y",
        "WARDMESH_PLATFORM_CIGNA_CLIENT_ID_FILE": "/run/secrets/cigna",
        "WARDMESH_PLATFORM_HUMANA_CLIENT_ID": "",
        "WARDMESH_PLATFORM_ANTHEM_CLIENT_SECRET": "z",
    }
    assert registered_platforms(environ) == {"AETNA", "EPIC_SANDBOX_PATIENT", "CIGNA"}


# --- FG-17, FG-33 ---

SECRET = {"FHIR_GATEWAY_SESSION_SECRET": "a secret of some length"}


def test_one_session_secret_is_enough_and_gives_every_replica_the_same_key() -> None:
    keys = read_settings(SECRET).ring()
    assert [len(key) for key in keys] == [32]
    assert keys == read_settings(dict(SECRET)).ring()
    assert keys != read_settings({"FHIR_GATEWAY_SESSION_SECRET": "another"}).ring()
    assert b"secret" not in keys[0]
    both = read_settings({**SECRET, **GOOD})
    assert both.ring() == read_settings(GOOD).ring()


def test_without_any_secret_it_starts_only_for_debugging() -> None:
    with pytest.raises(BadSettings, match="FHIR_GATEWAY_SESSION_SECRET"):
        read_settings({})
    debugging = read_settings({"FHIR_GATEWAY_DEBUG": "true"})
    assert [len(key) for key in debugging.ring()] == [32]


def test_a_redis_url_is_checked_where_tls_is_required() -> None:
    strict = {**GOOD, "FHIR_GATEWAY_REQUIRE_REDIS_TLS": "true"}
    with pytest.raises(BadSettings, match="rediss://") as raised:
        read_settings({**strict, "FHIR_GATEWAY_REDIS_URL": "redis://CANARY:6379"})
    assert "CANARY" not in str(raised.value)
    assert read_settings({**strict, "FHIR_GATEWAY_REDIS_URL": "rediss://cache:6379"}).redis_url
    assert read_settings({**GOOD, "FHIR_GATEWAY_REDIS_URL": "redis://cache:6379"}).redis_url


def test_cookies_are_secure_unless_a_setting_says_otherwise() -> None:
    assert read_settings(GOOD).session_cookie_secure
    assert not read_settings({**GOOD, "FHIR_GATEWAY_SESSION_COOKIE_SECURE": "false"}).session_cookie_secure


def test_origins_have_three_names() -> None:
    for name in ("WARDMESH_CORS_ORIGINS", "FHIR_GATEWAY_CORS_ORIGINS", "ALLOWED_ORIGINS"):
        assert read_settings({**GOOD, name: "https://a.test"}).origins == ("https://a.test",)
