"""Coverage through the whole mesh: the embedded store answers as a payer, policy decides, the ledger holds it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from mesh.agent import agent
from mesh.chromium import chromium, person
from mesh.ledger import until_event
from mesh.mcp_call import call_tool

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(400)]
MINE = {"patient_id": "FCE57", "coverage_id": "FCE57-cov"}
HCPCS = "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets"


def client(mesh: Any, person: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {mesh.token(person)}"}
    return httpx.Client(base_url=mesh.ready["gateway"], headers=headers, timeout=60)


def recorded(mesh: Any, answer: httpx.Response) -> dict[str, Any]:
    return asyncio.run(until_event(mesh, answer.headers["x-request-id"]))[0]["data"]


@pytest.mark.requirement("FG-10")
def test_the_embedded_store_answers_as_a_payer_over_rest(mesh: Any) -> None:
    with client(mesh, "demo_doctor") as doctor:

        def check(code: str, **more: str) -> httpx.Response:
            return doctor.post("/api/coverage/store/requirements", json={**MINE, "procedure_code": code, **more})

        needed = check("70551")
        assert needed.status_code == 200, needed.text
        found = needed.json()
        assert (found["status"], found["documentation_required"]) == ("required", True)
        assert found["questionnaire_url"].endswith("/Questionnaire/mri-brain")
        assert found["platform"]["id"] == "store"
        assert {name: found[name] for name in MINE} == MINE
        event = recorded(mesh, needed)
        assert (event["event"], event["outcome"]["code"]) == ("coverage.check", "success")
        statuses = {code: check(code).json()["status"] for code in ("99213", "97110", "12345")}
        assert statuses == {"99213": "not-required", "97110": "conditional", "12345": "unknown"}
        assert check("97110").json()["info_needed"] == ["timeframe", "performer"]
        assert check("e0601", code_system=HCPCS).json()["status"] == "required"
        stranger = doctor.post(
            "/api/coverage/store/requirements", json={**MINE, "patient_id": "DP100", "procedure_code": "70551"}
        )
        assert (stranger.status_code, stranger.json()) == (404, {"detail": "Resource not found"})
        assert recorded(mesh, stranger)["event"] == "error.coverage"

        asked = {"coverage_id": "FCE57-cov", "questionnaire_url": found["questionnaire_url"]}
        package = doctor.post("/api/coverage/store/questionnaire-package", json=asked)
        (form,) = package.json()["questionnaires"]
        assert (form["item_count"], form["required_count"]) == (5, 4)
        assert form["items"][0]["items"][0]["answer_options"]
        assert package.json()["libraries"]
        assert recorded(mesh, package)["event"] == "coverage.questionnaire_fetch"
        raw = doctor.post("/api/coverage/store/questionnaire-package", json={**asked, "raw_format": True}).json()
        assert raw["raw_bundle"]["resourceType"] == "Bundle"
        rules = doctor.get("/api/coverage/store/rules/70551")
        assert [rule["id"] for rule in rules.json()["rules"]] == ["pa-70551"]
        assert "MRI" in rules.json()["markdown_summary"]
        assert recorded(mesh, rules)["event"] == "coverage.platform_rules_fetch"


@pytest.mark.requirement("FG-10")
def test_an_open_platform_without_these_services_answers_strangers_without_a_guess(mesh: Any) -> None:
    """Nothing of the platform is read for it: it need not even be reachable."""
    with httpx.Client(base_url=mesh.ready["gateway"], timeout=60) as stranger:
        base = "/api/coverage/smarthealthit-sandbox"
        answer = stranger.post(f"{base}/requirements", json={**MINE, "procedure_code": "70551"})
        reason = "CRD endpoint not configured for this platform. Contact platform directly."
        assert (answer.status_code, answer.json()["status"], answer.json()["reason"]) == (200, "unknown", reason)
        package = stranger.post(f"{base}/questionnaire-package", json={"coverage_id": "x"}).json()
        assert package == {"questionnaires": [], "value_sets": {}, "libraries": []}
        assert stranger.get(f"{base}/rules/70551").json()["rules"] == []
        assert stranger.get("/api/coverage/store/rules/70551").status_code == 401


@pytest.mark.requirement("FG-23")
def test_the_same_as_tools_and_reception_is_refused(mesh: Any) -> None:
    url = mesh.ready["gateway"] + "/mcp"
    arguments = {"platform_id": "store", **MINE, "procedure_code": "70551"}

    async def calls() -> None:
        async with httpx.AsyncClient(timeout=60) as http:

            async def tool(person: str, name: str, given: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
                answer = await call_tool(http, url, mesh.token(person), name, given)
                return answer.refused, json.loads(answer.text)

            assert (await tool("demo_doctor", "check_prior_auth", arguments))[1]["status"] == "required"
            assert (await tool("demo_billing", "check_prior_auth", arguments))[1]["status"] == "required"
            some = {"platform_id": "store", "coverage_id": "FCE57-cov"}
            assert len((await tool("demo_doctor", "get_questionnaire_package", some))[1]["questionnaires"]) == 2
            code = {"platform_id": "store", "procedure_code": "70551"}
            assert (await tool("demo_doctor", "get_policy_rules", code))[1]["rules"]
            for name, given in (
                ("check_prior_auth", arguments),
                ("get_questionnaire_package", some),
                ("get_policy_rules", code),
            ):
                refused, said = await tool("demo_reception", name, given)
                assert (refused, said["error"]) == (True, "forbidden"), name

    asyncio.run(calls())


@pytest.mark.anyio
async def test_a_patient_with_an_own_sign_in_asks_about_the_own_coverage_only(mesh: Any) -> None:
    """The token opens the hospital's base; the payer's service is elsewhere and gets none."""
    platform = "local-smart-patient"
    async with chromium() as browser, agent(mesh, "demo_patient") as mcp:
        await mcp.forget(platform)
        dana = await person(mesh, browser, "demo_patient", "dana")
        link = (await mcp.ask("start_auth", platform_id=platform))["authorization_url"]
        assert await dana.sign_in(link) == "Authentication Successful"
        own = {"platform_id": platform, "patient_id": "DP100", "coverage_id": "DP100-cov", "procedure_code": "70551"}
        found = await mcp.ask("check_prior_auth", **own)
        assert (found["status"], found["platform"]["id"]) == ("required", platform), found
        forms = await mcp.ask("get_questionnaire_package", platform_id=platform, coverage_id="DP100-cov")
        assert len(forms["questionnaires"]) == 2
        other = await mcp.ask("check_prior_auth", **{**own, **MINE})
        assert other["error"] in {"not_found", "forbidden", "insufficient_scope"}, other
