"""Sign-in as an application without an agent uses it: REST routes, the cookie, scopes, handles and tasks."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from mesh.agent import agent
from mesh.healthlake import every_time, until
from mesh.ledger import until_event
from mesh.web import Web, web

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
PATIENT, CLINICIAN = "local-smart-patient", "local-smart-clinician"
DONE = "Authentication Successful"
PAGE_OF_OURS = {"x-requested-with": "tests"}
LABORATORY = f"/api/fhir/{PATIENT}/Observation?category=laboratory"


def subjects(bundle: dict[str, Any]) -> set[str]:
    found = [entry["resource"] for entry in bundle.get("entry", [])]
    return {resource["subject"]["reference"].rpartition("/")[2] for resource in found}


async def json_of(browser: Web, path: str) -> dict[str, Any]:
    answer = await browser.http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def begin(browser: Web, **query: str) -> str:
    """Address at the hospital; this browser has a session from now on."""
    answer = await browser.http.get(f"/auth/{PATIENT}/login", params={"redirect": "false", **query})
    assert answer.status_code == 200, answer.text
    return answer.json()["authorization_url"]


@pytest.mark.requirement("FG-11", "X-4", "X-5")
async def test_fg11_from_the_first_visit_to_the_logout(mesh: Any) -> None:
    async with web(mesh, account="frida") as frida:
        first = await frida.http.get(f"/auth/{PATIENT}/login", params={"redirect": "false"})
        began = first.json()
        assert set(began) == {"authorization_url", "state", "platform_id"}
        assert (began["platform_id"], "app_session" in first.cookies) == (PATIENT, True)
        assert await json_of(frida, "/auth/status") == {"platforms": {}}
        waiting = asyncio.create_task(json_of(frida, f"/auth/{PATIENT}/wait?timeout=60"))
        done, _ = await asyncio.wait([waiting], timeout=3)  # it waits; who comes second is told so at once
        assert not done
        early = await json_of(frida, f"/auth/{PATIENT}/wait?timeout=1")
        assert early == {"success": False, "message": "Authentication timed out or already waiting"}
        assert await frida.sign_in(began["authorization_url"]) == DONE
        waited = await waiting
        assert (waited["success"], waited["message"]) == (True, "Authentication completed")
        assert 0 < waited["expires_in"] <= 3600
        (row,) = (await json_of(frida, "/auth/status"))["platforms"].values()
        assert set(row) == {"platform_id", "authenticated", "has_token", "token_expires_at", "scopes"}
        assert (row["platform_id"], row["authenticated"], row["has_token"]) == (PATIENT, True, True)
        assert subjects(await json_of(frida, LABORATORY)) == {"FCE57"}
        plain = await frida.http.post(f"/auth/{PATIENT}/logout")
        assert (plain.status_code, plain.json()) == (403, {"detail": "Missing required header: X-Requested-With"})
        out = await frida.http.post(f"/auth/{PATIENT}/logout", headers=PAGE_OF_OURS)
        assert out.json() == {"success": True, "message": f"Logged out from {PATIENT}", "token_revoked": True}

        async def over() -> bool:
            return (await frida.http.get(LABORATORY)).status_code == 401

        await until(lambda: every_time(over, times=12), seconds=20)  # each replica hears of it when it does


@pytest.mark.requirement("FG-11")
async def test_fg11_a_login_leads_to_the_platform_and_an_unknown_one_nowhere(mesh: Any) -> None:
    async with web(mesh) as somebody:
        answer = await somebody.http.get(f"/auth/{PATIENT}/login", params={"scopes": "openid patient/Patient.rs"})
        location = urlsplit(answer.headers["location"])
        assert (answer.status_code, "app_session" in answer.cookies) == (302, True)
        assert answer.headers["location"].startswith(mesh.ready["hospital"]["issuer"])
        assert parse_qs(location.query)["scope"] == ["openid patient/Patient.rs"]
        unknown = await somebody.http.get("/auth/nowhere/login")
        assert (unknown.status_code, unknown.json()["detail"]) == (404, "Platform 'nowhere' not found")


async def test_a_bearer_token_takes_precedence_over_the_cookie_and_a_copied_handle_reaches_nobody(mesh: Any) -> None:
    """FG-14 and FG-34: the grant belongs to the browser's session, whoever else asks has none."""
    async with web(mesh, account="frida") as frida, web(mesh) as stranger:
        assert await frida.sign_in(await begin(frida)) == DONE
        token = {"authorization": f"Bearer {mesh.token('demo_nurse')}"}
        async with agent(mesh, "demo_nurse") as nurse:
            await nurse.forget(PATIENT)
        assert (await frida.http.get(LABORATORY, headers=token)).status_code == 401
        assert (await frida.http.get(LABORATORY)).status_code == 200
        assert (await stranger.http.get(LABORATORY)).status_code == 401
        await frida.sign_in(await begin(frida))
        async with agent(mesh, "demo_nurse") as nurse:
            assert (await nurse.ask("get_auth_status", platform_id=PATIENT))["has_token"] is False


@pytest.mark.requirement("FG-35", "X-6")
@pytest.mark.parametrize("scope", ["patient/Observation.read", "patient/Observation.rs"], ids=["v1", "v2"])
async def test_fg35_what_was_not_allowed_at_the_platform_is_refused_before_it_is_asked(mesh: Any, scope: str) -> None:
    async with web(mesh, account="dana") as dana:
        assert await dana.sign_in(await begin(dana, scopes=f"openid launch/patient {scope}")) == DONE
        assert subjects(await json_of(dana, LABORATORY)) == {"DP100"}
        refused = await dana.http.get(f"/api/fhir/{PATIENT}/Condition?patient=DP100")
        assert refused.status_code == 403
        assert refused.json()["detail"].startswith("Insufficient scope")
        recorded = await until_event(mesh, refused.headers["x-request-id"])
        assert "security.scope_violation" in str([leaf["data"] for leaf in recorded])
    async with agent(mesh, "demo_patient") as mcp, web(mesh, name="demo_patient", account="dana") as dana:
        await mcp.forget(PATIENT)
        started = await mcp.ask("start_auth", platform_id=PATIENT, scopes=["openid", "launch/patient", scope])
        assert await dana.sign_in(started["authorization_url"]) == DONE
        found = await mcp.ask("search", platform_id=PATIENT, resource_type="Observation", params={"code": "4548-4"})
        assert found["resourceType"] == "Bundle"
        refused_tool = await mcp.ask("search", platform_id=PATIENT, resource_type="Condition")
        assert refused_tool["error"] == "insufficient_scope"
        await mcp.forget(PATIENT)


async def test_a_refused_tool_says_over_rest_where_to_sign_in_and_the_link_works(mesh: Any) -> None:
    arguments = {"platform_id": PATIENT, "resource_type": "Patient", "resource_id": "DP100"}
    headers = {"authorization": f"Bearer {mesh.token('demo_patient')}"}
    async with agent(mesh, "demo_patient") as mcp, web(mesh, name="demo_patient", account="dana") as dana:
        await mcp.forget(PATIENT)
        async with httpx.AsyncClient(timeout=60, base_url=mesh.ready["gateway"], headers=headers) as http:
            await mcp.refused("read", **arguments)  # of what a test before ended every replica has heard
            refused = await http.post("/v1/tools/read", json=arguments)
            assert (refused.status_code, refused.json()["error"]) == (401, "session_error")
            assert await dana.sign_in(refused.json()["authorization_url"]) == DONE
            assert (await http.post("/v1/tools/read", json=arguments)).json()["id"] == "DP100"
        await mcp.forget(PATIENT)
