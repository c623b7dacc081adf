"""The environment of the datastores: AWS's own names, their defaults, and that the local store needs none (HL-16)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from wardmesh_fhir_proxy.catalogue import Platforms
from wardmesh_fhir_proxy.healthlake_signing import Signer, aws_environment
from wardmesh_fhir_proxy.settings import read
from wardmesh_fhir_proxy.upstream import UpstreamRequest

pytestmark = pytest.mark.anyio
KEY = base64.b64encode(b"k" * 32).decode()
NEEDED = {
    "WARDMESH_TOKEN_SEAL_KEY": KEY,
    "WARDMESH_CURSOR_KEYS": json.dumps([KEY]),
    "WARDMESH_NATS_URL": "nats://127.0.0.1:4222",
    "WARDMESH_NATS_USER": "fhir-proxy",
    "WARDMESH_NATS_PASSWORD": "x",
}
NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A machine with nothing but two profiles in a file."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    shared = tmp_path / "credentials"
    sections = ("default", "ward")
    lines = [f"[{name}]\naws_access_key_id = AKID{name}\naws_secret_access_key = of-a-test\n" for name in sections]
    shared.write_text("\n".join(lines))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(shared))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


@pytest.mark.requirement("HL-12", "HL-16")
def test_region_profile_and_read_only_mode_have_aws_s_names_and_these_defaults() -> None:
    bare = read(NEEDED)
    assert (bare.datastore_region, bare.aws_profile, bare.datastores_read_only) == ("", "", False)
    named = {"AWS_REGION": "eu-west-1", "AWS_PROFILE": "ward", "HEALTHLAKE_MCP_READONLY": "true"}
    found = read(NEEDED | named)
    assert (found.datastore_region, found.aws_profile, found.datastores_read_only) == ("eu-west-1", "ward", True)
    own = read(NEEDED | named | {"WARDMESH_DATASTORE_REGION": "us-east-2"})
    assert own.datastore_region == "us-east-2", "the own name goes first (C-9)"


@pytest.mark.requirement("HL-12", "HL-16")
def test_without_a_region_it_is_us_west_2_and_read_only_mode_is_a_fact_of_the_platform(tmp_path: Path) -> None:
    offered = {
        "id": "healthlake",
        "writes": True,
        "healthlake": {"endpoint": "http://127.0.0.1:1", "control": "/control"},
    }
    (tmp_path / "healthlake.yaml").write_text(json.dumps(offered))
    local = Platforms(tmp_path).descriptors["healthlake"]
    assert local.writes
    assert (local.healthlake.region, local.healthlake.signing) == ("us-west-2", "none")
    assert Platforms(tmp_path, region="eu-west-1").descriptors["healthlake"].healthlake.region == "eu-west-1"
    assert not Platforms(tmp_path, read_only_datastores=True).descriptors["healthlake"].writes


@pytest.mark.requirement("HL-16")
def test_credentials_come_from_the_variables_or_from_a_profile_default_if_none_is_named(
    machine: pytest.MonkeyPatch,
) -> None:
    unnamed, named = aws_environment("")(), aws_environment("ward")()
    assert unnamed is not None
    assert named is not None
    assert (unnamed.access_key, named.access_key) == ("AKIDdefault", "AKIDward")
    machine.setenv("AWS_ACCESS_KEY_ID", "AKIDvariable")
    machine.setenv("AWS_SECRET_ACCESS_KEY", "of-a-test")
    machine.setenv("AWS_SESSION_TOKEN", "session-of-a-test")
    from_variables = aws_environment("")()
    assert from_variables is not None
    assert (from_variables.access_key, from_variables.token) == ("AKIDvariable", "session-of-a-test")


@pytest.mark.requirement("HL-16")
async def test_the_local_store_is_asked_without_any_credential(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine.delenv("AWS_SHARED_CREDENTIALS_FILE")
    machine.setenv("HOME", str(tmp_path))
    read_anywhere = aws_environment("")
    assert read_anywhere() is None
    local: Any = Platforms(tmp_path).descriptors["healthlake"]
    request = UpstreamRequest(method="GET", url="http://store.test/datastore/x/r4/Patient", headers={})
    assert await Signer(read_anywhere).sign(local, request) is request
