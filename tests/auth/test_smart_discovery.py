"""Where a platform signs people in: its own documents, then the catalogue, and never beyond the bounds of its file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.smart_clinic import Clinic, clinic
from auth.smart_stage import platform
from wardmesh_auth.smart.address import mixed
from wardmesh_auth.smart.discovery import Discovery
from wardmesh_auth.smart.endpoints import Endpoints, from_capability_statement, from_document
from wardmesh_auth.smart.wire import Wire
from wardmesh_common.errors import PlatformDown, PlatformUnconfigured
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
    places = {"authorization_endpoint": f"{server.url}/a", "token_endpoint": f"{server.url}/t"}
    server.openid = places
    found = await Discovery(wire).endpoints(facts)
    assert (found.source, found.token, found.issuer) == ("openid-configuration", f"{server.url}/t", server.base)
    server.openid = places | {"issuer": "https://evil.example"}
    with pytest.raises(PlatformUnconfigured):
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
