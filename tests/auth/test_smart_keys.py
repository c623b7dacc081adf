"""Our own keys for private_key_jwt: assertions as SMART wants them, and a rotation that no platform notices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

from auth.smart_stage import platform
from wardmesh_auth.settings import PlatformClient, PlatformClients
from wardmesh_auth.smart.client_auth import method_of, sign
from wardmesh_auth.smart.client_keys import ASSERTION_SECONDS, ClientKeys
from wardmesh_auth.smart.endpoints import Endpoints
from wardmesh_common.errors import PlatformUnconfigured
from wardmesh_common.sign_in_facts import SignInFacts

TOKEN_URL = "https://clinic.example/token"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def verified(assertion: str, published: dict[str, Any], alg: str) -> dict[str, Any]:
    return jwt.decode(assertion, KeySet.import_key_set(published), algorithms=[alg]).claims  # type: ignore[arg-type]


@pytest.mark.parametrize("alg", ["RS384", "ES384"])
def test_an_assertion_is_short_lived_single_use_and_verifies_with_what_is_published(alg: str) -> None:
    clock = Clock()
    keys = ClientKeys.generate(clock)
    first, second = (verified(keys.assertion("us", TOKEN_URL, alg), keys.jwks(), alg) for _ in range(2))
    assert first["iss"] == first["sub"] == "us"
    assert first["aud"] == TOKEN_URL
    assert 0 < first["exp"] - clock.now <= 300
    assert first["jti"] != second["jti"]


def test_what_is_published_holds_no_private_part() -> None:
    keys = ClientKeys.generate()
    for key in keys.jwks()["keys"]:
        assert not set(key) & {"d", "p", "q", "dp", "dq", "qi", "k", "since"}
        assert key["use"] == "sig"
        assert key["kid"]
    assert {key["alg"] for key in keys.jwks()["keys"]} == {"RS384", "ES384"}
    assert ClientKeys.parse(keys.dump()).jwks() == keys.jwks()
    assert "ClientKey(...)" in repr(keys._ring)


@pytest.mark.parametrize("alg", ["RS384", "ES384"])
def test_a_rotation_is_never_noticed_by_a_platform_that_caches_our_keys(alg: str) -> None:
    """A platform that reads our key set every fifteen minutes accepts every assertion while it lasts."""
    clock = Clock()
    keys = ClientKeys.generate(clock)
    under_way: list[tuple[float, str]] = []
    cached, read_at = keys.jwks(), clock.now
    kids: set[str] = set()
    for minute in range(120):
        clock.now += 60
        if minute == 10:
            keys = keys.rotated()
        if clock.now - read_at >= 900:
            cached, read_at = keys.jwks(), clock.now
        under_way.append((clock.now, keys.assertion("us", TOKEN_URL, alg)))
        under_way = [(at, text) for at, text in under_way if at + ASSERTION_SECONDS > clock.now]
        for _, assertion in under_way:
            verified(assertion, cached, alg)
            verified(assertion, keys.jwks(), alg)
        kids |= {key["kid"] for key in keys.jwks()["keys"]}
    assert len(kids) == 4
    assert len(keys.jwks()["keys"]) == 2, "what is over is not published for ever"
    assert len(keys.rotated().rotated().jwks()["keys"]) == 6


def test_keys_come_as_a_set_or_as_pem_and_anything_else_is_refused_without_quoting_it() -> None:
    for key, alg in ((RSAKey.generate_key(2048), "RS384"), (ECKey.generate_key("P-384"), "ES384")):
        assert ClientKeys.parse(key.as_pem(private=True).decode()).algs == (alg,)
    bad = (
        "",
        "{}",
        '{"keys": [{"kty": "oct", "k": "CANARY"}]}',
        "CANARY",
        ECKey.generate_key("P-256").as_pem(private=True).decode(),
        RSAKey.generate_key(2048).as_pem(private=False).decode(),
    )
    for text in bad:
        with pytest.raises(ValueError, match="not a private JWK set") as caught:
            ClientKeys.parse(text)
        assert "CANARY" not in str(caught.value)


def test_without_a_key_there_is_a_plain_refusal() -> None:
    with pytest.raises(PlatformUnconfigured):
        ClientKeys().assertion("us", TOKEN_URL, "ES384")
    assert ClientKeys().jwks() == {"keys": []}


@pytest.mark.parametrize(
    ("client", "written", "offered", "method"),
    [
        (PlatformClient("c"), "client_secret_basic", (), "none"),
        (PlatformClient("c", "s"), "client_secret_basic", (), "client_secret_basic"),
        (PlatformClient("c", "s"), "client_secret_post", ("client_secret_post",), "client_secret_post"),
        (PlatformClient("c", "s"), "client_secret_basic", ("client_secret_post",), "client_secret_post"),
        (PlatformClient("c", "s"), "client_secret_basic", ("private_key_jwt",), "client_secret_basic"),
        (PlatformClient("c", "s"), "none", (), "none"),
        (PlatformClient("c"), "private_key_jwt", (), "private_key_jwt"),
        (PlatformClient("c", "s", "pem"), "client_secret_basic", (), "private_key_jwt"),
        (PlatformClient("c", "s", "", "client_secret_post"), "client_secret_basic", (), "client_secret_post"),
    ],
)
def test_how_a_client_proves_itself(
    client: PlatformClient, written: str, offered: tuple[str, ...], method: str
) -> None:
    assert method_of(platform("https://x", token_auth=written), client, Endpoints(token_auth_methods=offered)) == method


def test_the_algorithm_and_audience_of_an_assertion_follow_the_platform() -> None:
    keys = ClientKeys.generate()
    client = PlatformClient("us", method="private_key_jwt")
    found = Endpoints(token=TOKEN_URL, issuer="https://clinic.example", assertion_algs=("RS384",))
    signed = sign(platform("https://x"), client, found, keys, {}, TOKEN_URL)
    text = signed.body.rpartition("client_assertion=")[2]
    assert verified(text, keys.jwks(), "RS384")["aud"] == TOKEN_URL
    odd = platform("https://x", sign_in=SignInFacts(alg="ES384", assertion_audience="issuer"))
    text = sign(odd, client, found, keys, {}, TOKEN_URL).body.rpartition("client_assertion=")[2]
    assert verified(text, keys.jwks(), "ES384")["aud"] == "https://clinic.example"
    assert repr(signed) == "Signed(...)"


def test_a_confidential_platform_is_not_asked_by_a_client_without_a_secret() -> None:
    closed = platform("https://x", sign_in=SignInFacts(confidential=True))
    for client in (PlatformClient("us"), PlatformClient("us", method="client_secret_basic")):
        with pytest.raises(PlatformUnconfigured, match="confidential"):
            sign(closed, client, Endpoints(token=TOKEN_URL), ClientKeys(), {}, TOKEN_URL)


def test_clients_come_from_the_environment_and_from_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-a-file\n")
    (tmp_path / "key").write_text("a-key\n")
    clients = PlatformClients(
        {
            "FHIR_GATEWAY_PLATFORM_EPIC_SANDBOX_PATIENT_CLIENT_ID": "epic",
            "FHIR_GATEWAY_PLATFORM_EPIC_SANDBOX_PATIENT_CLIENT_SECRET_FILE": str(tmp_path / "secret"),
            "WARDMESH_PLATFORM_CERNER_CLIENT_ID": "cerner",
            "WARDMESH_PLATFORM_CERNER_PRIVATE_KEY_FILE": str(tmp_path / "key"),
            "WARDMESH_PLATFORM_CERNER_AUTH_METHOD": "private_key_jwt",
            "WARDMESH_PLATFORM_ODD_CLIENT_ID": "odd",
            "WARDMESH_PLATFORM_ODD_AUTH_METHOD": "magic",
        }
    )
    assert clients.of("epic-sandbox-patient") == PlatformClient("epic", "from-a-file")
    assert clients.of("cerner") == PlatformClient("cerner", "", "a-key", "private_key_jwt")
    assert clients.of("odd") is None
    assert clients.at(platform("https://x", sign_in=SignInFacts(client_id="demo_client"))) == PlatformClient(
        "demo_client"
    )
    assert clients.at(platform("https://x")) is None
