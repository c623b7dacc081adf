"""What a platform is asked for: scopes in its dialect, and a usable address for every row of the source table."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from auth.smart_stage import REDIRECT, platform, smart_client
from wardmesh_auth.settings import PlatformClient
from wardmesh_auth.smart.asking import scopes_for
from wardmesh_auth.smart.endpoints import Endpoints
from wardmesh_auth.smart.one_time import new_state, new_verifier
from wardmesh_common.errors import BadRequest, PlatformUnconfigured
from wardmesh_common.questions import PlatformFacts
from wardmesh_fhir_proxy.catalogue import Platforms

pytestmark = pytest.mark.anyio
ROWS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "platforms.csv"
V1, V2 = Endpoints(capabilities=("permission-v1",)), Endpoints(capabilities=("permission-v2",))
SILENT = Endpoints()


@pytest.mark.parametrize(
    ("wanted", "endpoints", "asked"),
    [
        ((), SILENT, "openid fhirUser patient/*.*"),
        ((), V2, "openid fhirUser patient/*.cruds"),
        (("patient/Observation.read", "openid"), V2, "patient/Observation.rs openid"),
        (("patient/Observation.rs",), V1, "patient/Observation.read"),
        (("patient/Observation.cruds",), V1, "patient/Observation.*"),
        (("patient/Observation.cu",), V1, "patient/Observation.write"),
        (("patient/Observation.rs?category=laboratory",), V2, "patient/Observation.rs?category=laboratory"),
        (("launch", "openid", "openid"), SILENT, "openid"),
    ],
)
def test_scopes_are_asked_for_in_the_platforms_dialect(
    wanted: tuple[str, ...], endpoints: Endpoints, asked: str
) -> None:
    assert scopes_for(platform("https://x"), endpoints, wanted) == asked


def test_scopes_that_cannot_be_said_are_refused_and_launches_ask_for_their_launch() -> None:
    facts = platform("https://x", scopes="openid launch launch/patient patient/*.read offline_access")
    assert scopes_for(facts, SILENT, ()) == "openid launch/patient patient/*.read offline_access"
    assert scopes_for(facts, SILENT, (), launched=True) == "launch openid patient/*.read offline_access"
    for bad in (("patient/Observation.rs?category=x",), ("two words",), ('quo"te',), ("",), ("s" * 300,)):
        with pytest.raises(BadRequest):
            scopes_for(facts, V1, bad)
    with pytest.raises(BadRequest):
        scopes_for(facts, SILENT, tuple(f"s{n}" for n in range(201)))


@pytest.mark.skipif(not ROWS.exists(), reason="the source table is not on this machine")
async def test_every_row_with_an_authorization_address_yields_a_usable_sign_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    with ROWS.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["authorization_url"] and row["token_url"]]
    assert len(rows) == 30
    known = {f.id: f for f in Platforms().facts().platforms}
    async with smart_client() as smart:
        for row in rows:
            facts = known[row["id"]]
            offline = msgspec.structs.replace(facts.sign_in, discovery="static")
            ours = PlatformClient("our-client", "our-secret")
            asked = smart.authorization(
                msgspec.structs.replace(facts, sign_in=offline),
                ours,
                redirect_uri=REDIRECT,
                state=new_state(),
                verifier=new_verifier(),
                nonce="n",
            )
            if "{" in row["authorization_url"]:
                with pytest.raises(PlatformUnconfigured):  # a tenant has to be named first
                    await asked
                continue
            check_url(await asked, row, facts)


def check_url(url: str, row: dict[str, str], facts: PlatformFacts) -> None:
    assert url.startswith(row["authorization_url"])
    sent = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert sent["code_challenge_method"] == "S256", row["id"]
    assert sent.get("aud", "") == row["fhir_base_url"], row["id"]
    scopes = sent["scope"].split()
    assert scopes, row["id"]
    assert not any(scope.endswith((":", ";")) for scope in scopes), "labels of scope sets are no scopes"
    if row["scopes_source"] == "oauth.scopes" and ";" not in row["scopes"]:
        assert scopes == row["scopes"].split()
    if not row["scopes"]:
        assert scopes == ["openid", "fhirUser", "patient/*.*"]
    assert facts.has_oauth
