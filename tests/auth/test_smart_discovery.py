"""Where a platform signs people in: its own documents, then the catalogue, and never beyond the bounds of its file."""

from __future__ import annotations

import asyncio
import csv
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.smart_clinic import Clinic, clinic
from auth.smart_stage import REDIRECT, platform, smart_client
from wardmesh_auth.settings import PlatformClient
from wardmesh_auth.smart.address import PublicResolver, Zone, mixed, public, reachable, zone_of
from wardmesh_auth.smart.asking import scopes_for
from wardmesh_auth.smart.discovery import Discovery
from wardmesh_auth.smart.endpoints import Endpoints, from_capability_statement, from_document
from wardmesh_auth.smart.one_time import new_state, new_verifier
from wardmesh_auth.smart.wire import Wire
from wardmesh_common.errors import BadRequest, PlatformDown, PlatformUnconfigured
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.sign_in_facts import SignInFacts
from wardmesh_fhir_proxy.catalogue import Platforms

pytestmark = pytest.mark.anyio
ROWS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "platforms.csv"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[Clinic]:
    async with clinic() as ready:
        yield ready


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    ready = Wire(seconds=2.0)
    yield ready
    await ready.close()


def configuration(server: Clinic, **changed: Any) -> dict[str, Any]:
    found = {
        "issuer": server.base,
        "jwks_uri": f"{server.url}/keys",
        "authorization_endpoint": f"{server.url}/smart/authorize",
        "token_endpoint": f"{server.url}/smart/token",
        "capabilities": ["permission-v2"],
        "code_challenge_methods_supported": ["S256"],
    }
    return {k: v for k, v in (found | changed).items() if v is not None}


@pytest.mark.requirement("X-9")
async def test_the_smart_configuration_comes_first_then_the_metadata_then_the_catalogue_and_differences_are_told(
    server: Clinic, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    written = platform(server.base, authorize_url=f"{server.url}/old/authorize", token_url=f"{server.url}/old/token")
    server.configuration = configuration(server)
    first = await Discovery(wire).endpoints(written)
    assert (first.source, first.token) == ("smart-configuration", f"{server.url}/smart/token")
    assert [r.getMessage() for r in caplog.records] == [
        f"platform clinic: its smart-configuration names another {what} address than the catalogue"
        for what in ("authorize", "token")
    ]
    server.configuration = None
    second = await Discovery(wire).endpoints(written)
    assert (second.source, second.token) == ("metadata", f"{server.url}/v/r4/auth/token")
    server.metadata = {"resourceType": "CapabilityStatement"}
    caplog.clear()
    third = await Discovery(wire).endpoints(written)
    assert (third.source, third.authorize) == ("catalogue", f"{server.url}/old/authorize")
    assert not caplog.records


async def test_many_who_ask_cause_one_look_and_an_answer_is_kept_for_an_hour(server: Clinic, wire: Wire) -> None:
    clock = Clock()
    server.configuration = configuration(server)
    discovery = Discovery(wire, clock=clock)
    facts = platform(server.base)
    await asyncio.gather(*(discovery.endpoints(facts) for _ in range(20)))
    clock.now = 3599
    await discovery.endpoints(facts)
    assert len(server.requests) == 1
    clock.now = 3601
    await discovery.endpoints(facts)
    assert len(server.requests) == 2


async def test_while_a_platform_is_down_the_catalogue_serves_and_it_is_asked_again_soon(
    server: Clinic, wire: Wire
) -> None:
    clock = Clock()
    discovery = Discovery(wire, clock=clock)
    gone = "http://127.0.0.1:9/fhir"
    with pytest.raises(PlatformDown):
        await discovery.endpoints(platform(gone))
    urls = {"authorize_url": "http://127.0.0.1:9/a", "token_url": "http://127.0.0.1:9/t"}
    assert (await discovery.endpoints(platform(gone, **urls))).source == "catalogue"


@pytest.mark.parametrize(
    "document",
    [
        {"token_endpoint": None},
        {"authorization_endpoint": 7},
        {"token_endpoint": "http://clinic.example/token"},
        {"token_endpoint": "https://user@clinic.example/token"},
        {"token_endpoint": "https://clinic.example/{tenant}/token"},
        {"token_endpoint": "https://169.254.169.254/token"},
        {"token_endpoint": "https://10.0.0.1/token"},
        {"token_endpoint": "file:///etc/passwd"},
        {"token_endpoint": "https://clinic.example:99999/token"},
    ],
)
async def test_a_document_with_an_unusable_address_counts_as_silent(
    server: Clinic, wire: Wire, document: dict[str, Any]
) -> None:
    server.configuration = configuration(server, **document)
    assert (await Discovery(wire).endpoints(platform(server.base))).source == "metadata"
    server.metadata = server.statement(token=str(document.get("token_endpoint") or "junk"), authorize="junk")
    with pytest.raises(PlatformUnconfigured):
        await Discovery(wire).endpoints(platform(server.base))


async def test_openid_metadata_must_be_of_the_issuer_in_the_platforms_file(server: Clinic, wire: Wire) -> None:
    facts = platform(server.base, sign_in=SignInFacts(discovery="oidc", issuer=f"{server.url}/v/r4/fhir"))
    with pytest.raises(PlatformUnconfigured):  # this server's metadata name no token endpoint
        await Discovery(wire).endpoints(facts)
    static = platform(
        server.base,
        authorize_url=f"{server.url}/a",
        token_url=f"{server.url}/t",
        sign_in=SignInFacts(discovery="static", revocation_url=f"{server.url}/r"),
    )
    before = len(server.requests)
    found = await Discovery(wire).endpoints(static)
    assert (found.source, found.revocation) == ("catalogue", f"{server.url}/r")
    assert len(server.requests) == before


async def test_a_production_base_never_goes_with_the_sign_in_of_a_sandbox(wire: Wire) -> None:
    platforms = {f.id: f for f in Platforms().facts().platforms}
    medicare, sandbox = platforms["medicare"], platforms["medicare-sandbox"]
    wrong = msgspec.structs.replace(
        medicare,
        authorize_url=sandbox.authorize_url,
        token_url=sandbox.token_url,
        sign_in=msgspec.structs.replace(medicare.sign_in, discovery="static"),
    )
    with pytest.raises(PlatformUnconfigured, match="sandbox"):
        await Discovery(wire).endpoints(wrong)
    for facts in platforms.values():
        assert not mixed(facts, (facts.authorize_url, facts.token_url)), facts.id


@pytest.mark.parametrize(
    ("url", "zone", "good"),
    [
        ("https://clinic.example/token", Zone.PUBLIC, True),
        ("http://clinic.example/token", Zone.PUBLIC, False),
        ("http://localhost/token", Zone.PUBLIC, False),
        ("https://127.0.0.1/token", Zone.PUBLIC, False),
        ("https://[::1]/token", Zone.PUBLIC, False),
        ("https://[::ffff:10.0.0.1]/token", Zone.PUBLIC, False),
        ("https://192.168.1.1/token", Zone.PUBLIC, False),
        ("https://100.64.0.1/token", Zone.PUBLIC, False),
        ("https://8.8.8.8/token", Zone.PUBLIC, True),
        ("http://localhost:1/token", Zone.LOOPBACK, True),
        ("http://clinic.example/token", Zone.LOOPBACK, False),
        ("https://192.168.1.1/token", Zone.LOOPBACK, False),
        ("https://192.168.1.1/token", Zone.PRIVATE, True),
        ("http://192.168.1.1/token", Zone.PRIVATE, False),
        ("https://clinic.example/a#b", Zone.PUBLIC, False),
        ("https://", Zone.PUBLIC, False),
        ("", Zone.PUBLIC, False),
    ],
)
def test_which_addresses_may_be_opened(url: str, zone: Zone, good: bool) -> None:
    assert reachable(url, zone) is good


def test_only_the_platforms_own_file_widens_the_bounds() -> None:
    assert zone_of(platform("https://clinic.example/fhir")) is Zone.PUBLIC
    assert zone_of(platform("http://localhost:8080/fhir")) is Zone.LOOPBACK
    assert zone_of(platform("https://clinic.example/fhir", sign_in=SignInFacts(private_network=True))) is Zone.PRIVATE


@given(st.ip_addresses())
def test_no_private_address_is_public_under_any_of_its_names(address: Any) -> None:
    if address.is_private or address.is_loopback or address.is_link_local or address.is_multicast:
        assert not public(str(address))
        if address.version == 4:
            assert not public(f"::ffff:{address}")
            assert not public(f"64:ff9b::{address}")


async def test_a_name_that_leads_to_this_machine_is_not_followed(server: Clinic, wire: Wire) -> None:
    """`localhost` by another spelling: the guard looks at what a name resolves to, not at the name."""
    port = urlsplit(server.url).port
    for host in ("localhost.", "2130706433", "0x7f.1"):
        with pytest.raises((PlatformDown, PlatformUnconfigured)):
            await wire.get(f"https://{host}:{port}/v/r4/fhir/metadata", Zone.PUBLIC)
    resolver = PublicResolver()
    with pytest.raises(OSError, match="no public address"):
        await resolver.resolve("localhost", port or 0)
    await resolver.close()
    assert not server.requests


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=10),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["rest", "security", "extension", "url", "valueUri", "issuer", "capabilities"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_document_is_read_without_an_error(document: Any) -> None:
    members = document if isinstance(document, dict) else {"rest": document, "capabilities": document}
    assert isinstance(from_capability_statement(members), Endpoints)
    assert isinstance(from_document(members, "smart-configuration"), Endpoints)


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
