"""A vendor's secret at the organisations of a list: shown where the vendor's file says, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from auth.smart_clinic import CLIENT, SECRET, Clinic
from auth.smart_stage import SignIn, platform, smart_client
from wardmesh_auth.settings import PlatformClient, PlatformClients
from wardmesh_auth.smart.client import SmartClient
from wardmesh_auth.smart.client_keys import ClientKeys
from wardmesh_common.errors import PlatformUnconfigured
from wardmesh_common.questions import PlatformFacts
from wardmesh_common.sign_in_facts import SignInFacts

pytestmark = pytest.mark.anyio
LENT = PlatformClient(CLIENT, SECRET, lent=True)
SCOPES = ("launch/patient", "patient/*.read")


def organisation(server: Clinic, **quirks: Any) -> PlatformFacts:
    facts = platform(server.base, sign_in=SignInFacts(id_token="unused", **quirks))
    return msgspec.structs.replace(facts, id="vendor-org-0123456789abcdef", vendor="vendor")


def configured(server: Clinic, **changed: Any) -> dict[str, Any]:
    where = {name: f"{server.url}/v/r4/auth/{name}" for name in ("authorize", "token", "revoke")}
    return {
        "authorization_endpoint": where["authorize"],
        "token_endpoint": where["token"],
        "revocation_endpoint": where["revoke"],
        **changed,
    }


async def test_a_listed_organisation_that_names_its_own_token_service_gets_no_secret(
    smart: SmartClient, server: Clinic
) -> None:
    who = SignIn(smart, organisation(server), LENT, SCOPES)
    with pytest.raises(PlatformUnconfigured) as refused:
        await who.browse()
    with pytest.raises(PlatformUnconfigured):
        await who.exchange(code="c", iss="")
    assert "no secret" in str(refused.value.problem.detail)
    assert server.forms == []


async def test_the_token_service_that_the_vendors_file_names_gets_it(smart: SmartClient, server: Clinic) -> None:
    who = SignIn(smart, organisation(server, secret_hosts=(urlsplit(server.url).netloc,)), LENT, SCOPES)
    assert (await who.complete()).patient == "p7"
    assert server.forms[0]["authorization"].startswith("Basic ")


@pytest.fixture
async def signing() -> AsyncIterator[SmartClient]:
    async with smart_client(ClientKeys.generate(), seconds=1.0) as client:
        yield client


async def test_an_organisation_that_takes_signed_assertions_gets_one_for_itself_alone(
    signing: SmartClient, server: Clinic
) -> None:
    smart = signing
    server.configuration = configured(server, token_endpoint_auth_methods_supported=["private_key_jwt"])
    who = SignIn(smart, organisation(server), LENT, SCOPES)
    server.body = b'{"access_token": "t", "token_type": "bearer"}'
    await who.browse()
    token = await who.exchange()
    assert token.access_token == "t"
    assert await smart.revoke(who.facts, LENT, token)
    server.configuration = configured(
        server, token_endpoint_auth_methods_supported=["private_key_jwt"], issuer="https://vendor.example"
    )
    deceiver = organisation(server, assertion_audience="issuer")
    with pytest.raises(PlatformUnconfigured):
        await smart.exchange(deceiver, LENT, code="c", verifier="v" * 64, redirect_uri="http://x", nonce="")


async def test_a_revocation_address_elsewhere_gets_neither_secret_nor_assertion(
    smart: SmartClient, server: Clinic
) -> None:
    there = f"http://localhost:{urlsplit(server.url).port}/v/r4/auth/revoke"
    server.configuration = configured(server, revocation_endpoint=there)
    who = SignIn(smart, organisation(server, secret_hosts=(urlsplit(server.url).netloc,)), LENT, SCOPES)
    token = await who.complete()
    assert await smart.revoke(who.facts, LENT, token) is False
    assert "/v/r4/auth/revoke" not in server.requests


def test_only_the_vendors_registration_is_lent_never_one_of_the_organisation_itself() -> None:
    own = "WARDMESH_PLATFORM_VENDOR_ORG_0123456789ABCDEF_CLIENT_ID"
    facts = PlatformFacts(id="vendor-org-0123456789abcdef", name="x", type="ehr", vendor="vendor")
    vendors = {"WARDMESH_PLATFORM_VENDOR_CLIENT_ID": "v", "PLATFORM_VENDOR_CLIENT_SECRET": "s"}
    lent = PlatformClients(vendors).at(facts)
    assert lent is not None
    assert (lent.client_id, lent.lent) == ("v", True)
    kept = PlatformClients({**vendors, own: "o"}).at(facts)
    assert kept is not None
    assert (kept.client_id, kept.lent) == ("o", False)
