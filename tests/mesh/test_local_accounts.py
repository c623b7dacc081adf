"""Local accounts of the demo (SH-9): the same people with a password at the gateway itself."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
SSN = "http://hl7.org/fhir/sid/us-ssn"
STAFF = ("demo_admin", "demo_doctor", "demo_nurse", "demo_billing", "demo_reception", "demo_auditor")


async def test_the_six_demo_accounts_log_in_and_each_sees_what_its_role_may(mesh: Any) -> None:
    gateway = mesh.ready["gateway"]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        tokens: dict[str, str] = {}
        found: dict[str, str] = {}
        for name in STAFF:
            body = {"username": name, "password": "DemoPass123!"}
            async with session.post(f"{gateway}/api/token/", json=body) as answer:
                found = await answer.json()
                assert (answer.status, set(found)) == (200, {"access", "refresh"}), name
                tokens[name] = found["access"]
        async with session.post(f"{gateway}/api/token/refresh/", json={"refresh": found["refresh"]}) as answer:
            assert answer.status == 200
        wrong = {"username": "demo_admin", "password": "DemoPass123"}
        async with session.post(f"{gateway}/api/token/", json=wrong) as answer:
            assert answer.status == 401
        numbers: dict[str, str] = {}
        for name in ("demo_doctor", "demo_nurse"):
            headers = {"Authorization": f"Bearer {tokens[name]}"}
            async with session.get(f"{gateway}/api/fhir/store/Patient/FCE57", headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                identifiers = (await answer.json())["identifier"]
            numbers[name] = next((one["value"] for one in identifiers if one["system"] == SSN), "")
        assert numbers["demo_doctor"] != ""
        assert numbers["demo_nurse"] != numbers["demo_doctor"], "a nurse sees no number (X-29)"
