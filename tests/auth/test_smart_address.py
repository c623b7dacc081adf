"""Which addresses a sign-in may reach: no name and no spelling leads inside, unless the platform's file says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.smart_clinic import Clinic, clinic
from auth.smart_stage import platform
from wardmesh_auth.smart.address import PublicResolver, Zone, public, reachable, zone_of
from wardmesh_auth.smart.wire import Wire
from wardmesh_common.errors import PlatformDown, PlatformUnconfigured
from wardmesh_common.sign_in_facts import SignInFacts

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server() -> AsyncIterator[Clinic]:
    async with clinic() as ready:
        yield ready


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    ready = Wire(seconds=2.0)
    yield ready
    await ready.close()


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
