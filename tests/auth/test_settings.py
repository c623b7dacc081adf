"""Settings of auth: refused clearly and early, never with a value in the message; secrets also from files."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from wardmesh_auth.identify import Roles
from wardmesh_auth.settings import PlatformClient, PlatformClients, has_master_key, master_ring, read_settings
from wardmesh_auth.vault import Envelope, Vault, master_key
from wardmesh_common.errors import Internal
from wardmesh_common.settings import BadSettings

GOOD = {
    "WARDMESH_ISSUER": "https://issuer.example",
    "WARDMESH_DATABASE_URL": "postgresql://auth@127.0.0.1:5432/auth",
    "WARDMESH_TOKEN_SEAL_KEY": base64.urlsafe_b64encode(os.urandom(32)).decode(),
}


def test_good_settings_are_read_and_the_audience_follows_the_public_url() -> None:
    settings = read_settings(GOOD | {"WARDMESH_PUBLIC_URL": "https://mesh.example/"})
    assert settings.all_audiences == ("https://mesh.example/mcp",)
    assert settings.role_claims == ("roles",)
    assert settings.role_map == {}
    assert len(master_ring(settings)) == 1, "without a master key only the deployment's own"
    assert not has_master_key(settings)
    more = read_settings(GOOD | {"WARDMESH_AUDIENCE": "a", "WARDMESH_AUDIENCES": '["b"]'})
    assert more.all_audiences == ("a", "b")
    mapped = read_settings(GOOD | {"WARDMESH_ROLE_MAP": '{"g1": ["Doctor"]}', "WARDMESH_ROLE_CLAIMS": '["groups"]'})
    assert Roles(mapped.role_claims, mapped.role_map).of({"groups": ["g1", "g2"]}) == ("Doctor",)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"WARDMESH_TOKEN_SEAL_KEY": "SECRET"}, "WARDMESH_TOKEN_SEAL_KEY"),
        ({"WARDMESH_MASTER_KEY": "SECRET-too-short"}, "WARDMESH_MASTER_KEY"),
        ({"FHIR_GATEWAY_MASTER_KEY": "SECRET-too-short"}, "WARDMESH_MASTER_KEY"),
        ({"WARDMESH_MASTER_KEYS": '["SECRET"]'}, "WARDMESH_MASTER_KEY"),
        ({"WARDMESH_DATABASE_URL": "mysql://SECRET@x/y"}, "WARDMESH_DATABASE_URL"),
        ({"WARDMESH_CLOCK_SKEW_SECONDS": "9999"}, "WARDMESH_CLOCK_SKEW_SECONDS"),
    ],
)
def test_bad_settings_name_the_variable_and_not_its_value(change: dict[str, str], named: str) -> None:
    with pytest.raises(BadSettings) as caught:
        read_settings(GOOD | change)
    assert named in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_the_ring_of_master_keys_takes_keys_and_passphrases_newest_first() -> None:
    new, old = base64.urlsafe_b64encode(os.urandom(32)).decode(), "a passphrase of more than 32 characters"
    environ = GOOD | {"WARDMESH_MASTER_KEYS": f'["{new}"]', "FHIR_GATEWAY_MASTER_KEY": old}
    ring = master_ring(read_settings(environ))
    assert ring[:2] == (base64.urlsafe_b64decode(new), master_key(old))
    assert ring[2:] == master_ring(read_settings(GOOD)), "what was stored before is still read"
    assert master_key(old) == master_key(old), "every replica must find the same key"


def test_platform_clients_come_from_the_environment_or_files_and_ours_wins(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3\n")
    clients = PlatformClients(
        {
            "FHIR_GATEWAY_PLATFORM_AETNA_CLIENT_ID": "theirs",
            "WARDMESH_PLATFORM_AETNA_CLIENT_ID": "ours",
            "FHIR_GATEWAY_PLATFORM_AETNA_CLIENT_SECRET": "s1",
            "FHIR_GATEWAY_PLATFORM_EPIC_SANDBOX_CLIENT_ID": "e",
            "WARDMESH_PLATFORM_EPIC_SANDBOX_CLIENT_SECRET_FILE": str(secret),
            "WARDMESH_PLATFORM_LOST_CLIENT_ID_FILE": str(tmp_path / "absent"),
        }
    )
    assert clients.of("aetna") == PlatformClient("ours", "s1")
    assert clients.of("epic-sandbox") == PlatformClient("e", "s3")
    assert clients.of("nobody") is None
    assert "s1" not in repr(clients.of("aetna"))
    assert clients.of("lost") is None


def test_an_envelope_opens_for_its_row_only_and_every_row_has_its_own_key() -> None:
    vault = Vault((os.urandom(32),))
    one, two = vault.seal(b"secret", "row-1"), vault.seal(b"secret", "row-1")
    assert vault.open(one, "row-1") == b"secret"
    assert one.wrapped_key != two.wrapped_key
    assert one.ciphertext != two.ciphertext
    swapped = Envelope(one.key_id, two.wrapped_key, one.ciphertext)
    for envelope, row in ((one, "row-2"), (swapped, "row-1"), (Envelope("?", b"", b""), "row-1")):
        with pytest.raises(Internal) as caught:
            vault.open(envelope, row)
        assert "secret does" in str(caught.value) or "master key" in str(caught.value)
