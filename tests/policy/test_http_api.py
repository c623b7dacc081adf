"""CERBOS_HTTP_API_URL: the policy engine under the address of its HTTP API (SM-9)."""

from __future__ import annotations

import pytest

import engines
from policy.pdp_stage import judging

pytestmark = pytest.mark.anyio


@pytest.mark.requirement("SM-9")
async def test_the_same_policies_are_asked_under_the_address_of_the_http_api(pdp: engines.Cerbos) -> None:
    async with judging(f"{pdp.http_url}/") as judge:
        assert (await judge.ask("practitioner", "read", "Patient", resource_id="p1")).allowed
        assert not (await judge.ask("practitioner", "delete", "Patient", resource_id="p1")).allowed
