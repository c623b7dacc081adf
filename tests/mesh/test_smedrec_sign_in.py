"""A deployment of the SMART server: one client signs in at the hospital, uses the tools on /sse, and leaves (SM-1)."""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from mesh.healthlake import until
from mesh.ledger import until_event
from mesh.traffic import steady

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]
SM_COOKIES = {"FHIR_AUTH_STATE_COOKIE", "FHIR_PKCE_VERIFIER_COOKIE", "FHIR_SESSION_COOKIE"}
_ACTION = re.compile(r'action="([^"]+)"')


@asynccontextmanager
async def browser(mesh: Any) -> AsyncGenerator[httpx2.AsyncClient]:
    """Keeps cookies, the Secure ones too, as browsers do for this machine."""
    async with httpx2.AsyncClient(base_url=mesh.ready["gateway"], timeout=60) as http:

        async def trusted(_answer: httpx2.Response) -> None:
            for cookie in http.cookies.jar:
                cookie.secure = False

        http.event_hooks["response"].append(trusted)
        yield http


@asynccontextmanager
async def agent(mesh: Any, http: httpx2.AsyncClient) -> AsyncGenerator[Client]:
    """An MCP client of the handshake era, which keeps its session from before the login."""
    transport = streamable_http_client(f"{mesh.ready['gateway']}/sse", http_client=http)
    async with Client(transport, mode="legacy") as client:
        yield client


async def read(client: Client, patient: str) -> tuple[bool, str, dict[str, Any]]:
    result = await client.call_tool("fhirPatientRead", {"id": patient})
    text = str(result.content[0].text)  # pyright: ignore[reportAttributeAccessIssue]
    return bool(result.is_error), text, dict(result.structured_content or {})


def set_cookies(answer: httpx2.Response) -> dict[str, str]:
    return {text.partition("=")[0]: text for text in answer.headers.get_list("set-cookie")}


async def through_the_hospital(mesh: Any, http: httpx2.AsyncClient, location: str) -> httpx2.Response:
    """Signs in and allows; the answer of our callback."""
    answer = await http.get(location)
    while not str(answer.url).startswith(f"{mesh.ready['gateway']}/auth/callback"):
        if answer.is_redirect:
            answer = await http.get(answer.url.join(answer.headers["location"]))
            continue
        action = _ACTION.search(answer.text)
        form = {"decision": "allow"}
        if 'name="password"' in answer.text:
            password = mesh.ready["hospital"]["accounts"]["dr_jansen"]["password"]
            form = {"decision": "sign-in", "username": "dr_jansen", "password": password}
        target = answer.url.join(html.unescape(action[1])) if action else answer.url
        answer = await http.post(target, data=form)
    return answer


@pytest.mark.requirement("SM-1", "SM-2", "SM-9", "SM-11")
async def test_a_client_is_sent_to_log_in_reads_with_what_it_was_granted_and_leaves(lone_mesh: Any) -> None:
    gateway, hospital = lone_mesh.ready["gateway"], lone_mesh.ready["hospital"]
    async with browser(lone_mesh) as http, agent(lone_mesh, http) as client:
        failed, text, _ = await read(client, "FCE57")
        assert (failed, text.partition(" Open ")[0]) == (True, "FHIR client not available.")
        assert f"{gateway}/auth/login" in text
        login = await http.get("/auth/login")
        asked = {name: values[0] for name, values in parse_qs(urlsplit(login.headers["location"]).query).items()}
        assert (login.status_code, login.headers["location"].partition("?")[0]) == (302, f"{hospital['issuer']}/auth")
        assert (
            asked.items()
            >= {
                "response_type": "code",
                "client_id": "wardmesh-clinician",
                "redirect_uri": f"{gateway}/auth/callback",
                "scope": "openid fhirUser offline_access user/*.*",
                "aud": hospital["base"],
                "code_challenge_method": "S256",
            }.items()
        )
        assert asked["state"]
        assert asked["code_challenge"]
        held = set_cookies(login)
        assert held.keys() >= SM_COOKIES - {"FHIR_SESSION_COOKIE"}
        back = await through_the_hospital(lone_mesh, http, login.headers["location"])
        assert (back.status_code, back.headers["location"]) == (302, "/"), back.text
        held = set_cookies(back)
        assert held.keys() >= SM_COOKIES
        assert {name for name in SM_COOKIES if "Max-Age=0" in held[name]} == SM_COOKIES - {"FHIR_SESSION_COOKIE"}
        for name in SM_COOKIES:
            assert {"Path=/", "HttpOnly", "Secure", "SameSite=Lax"} <= {part.strip() for part in held[name].split(";")}
        lifetime = re.search(r"Max-Age=(\d+)", held["FHIR_SESSION_COOKIE"])
        assert lifetime
        assert 0 < int(lifetime[1]) <= 3600
        assert "eyJ" not in "".join(held.values()), "an id, no token"
        failed, _, patient = await read(client, "FCE57")
        assert (failed, patient["resourceType"], patient["id"]) == (False, "Patient", "FCE57")
        out = await http.get("/auth/logout")
        assert (out.status_code, out.headers["location"]) == (302, "/")
        assert "Max-Age=0" in set_cookies(out)["FHIR_SESSION_COOKIE"]
        assert (await read(client, "FCE57"))[1].startswith("FHIR client not available.")


@pytest.mark.requirement("SM-6")
async def test_a_refusal_names_who_the_hospital_says_it_is(lone_mesh: Any) -> None:
    async with browser(lone_mesh) as http:
        login = await http.get("/auth/login")
        await through_the_hospital(lone_mesh, http, login.headers["location"])
        asked = {"id": 1, "jsonrpc": "2.0", "method": "fhirOrganizationCreate"}
        resource = {"resourceType": "Organization", "name": "Refused"}
        answer = await http.post("/sse", json={**asked, "params": {"resource": resource}})
        said = answer.json()["error"]["message"]
        assert re.fullmatch(
            r"Forbidden: User \S+ with roles \[practitioner\] not authorized to perform 'create' on Organization/\*\.",
            said,
        ), said
        (leaf,) = await until_event(lone_mesh, answer.headers["x-request-id"])
        assert leaf["source"].startswith("urn:wardmesh:policy:"), "it ended there: no FHIR server was asked"
        lone_mesh.freeze("cerbos")
        try:
            unreachable = (await http.post("/sse", json=direct("fhirOrganizationRead", id="nobody-asked"))).json()
        finally:
            lone_mesh.thaw("cerbos")
            # What comes after this test is decided again.
            await steady(lone_mesh.ready["gateway"], "/api/fhir/store/Patient/FCE57", lone_mesh.token("demo_doctor"))
        assert unreachable["error"]["message"].startswith("Forbidden: User ")


@pytest.mark.requirement("FG-31")
def test_one_command_has_started_every_service_as_a_process_of_its_own(lone_mesh: Any) -> None:
    running = {row["group"] for row in lone_mesh.status().values() if row["state"] == "ready"}
    assert running >= {"gateway", "auth", "policy", "fhir-proxy", "audit", "fhir-store", "nats", "postgres", "cerbos"}
    assert len({pid for service in running for pid in lone_mesh.pids(service)}) >= len(running)


def direct(tool: str, **arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": tool, "params": arguments}


async def called(http: httpx2.AsyncClient, tool: str, **arguments: Any) -> str:
    """The id under which the ledger knows this call."""
    answer = await http.post("/sse", json=direct(tool, **arguments))
    assert answer.status_code == 200, answer.text
    return answer.headers["x-request-id"]


def exported(mesh: Any, folder: Path, name: str) -> list[dict[str, Any]]:
    """Everything in the ledger, in the words of another system, with what is sealed."""
    form = "smedrec" if name.startswith("smedrec") else "fhir-audit"
    done = mesh.audit("export", str(folder), "--format", form, "--open", "--by", "officer")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


async def covering(mesh: Any, folder: Path, count: int) -> list[dict[str, Any]]:
    """The trail of the last calls, as soon as a checkpoint covers the last one, which created a patient."""

    async def whole() -> list[dict[str, Any]]:
        trail = await asyncio.to_thread(exported, mesh, folder, "smedrec.ndjson")
        ended = bool(trail) and (trail[-1]["action"], trail[-1]["status"]) == ("fhirPatientCreate", "success")
        return trail[-3 * count :] if ended else []

    return await until(whole)


TRAIL = {"timestamp", "principalId", "action", "targetResourceType", "targetResourceId", "status", "outcomeDescription"}


@pytest.mark.requirement("SM-8")
async def test_every_tool_call_leaves_three_records(lone_mesh: Any, tmp_path: Path) -> None:
    search = {"resourceType": "Observation", "searchParams": {"code": ["4548-4", "718-7"], "patient": "FCE57"}}
    async with browser(lone_mesh) as http:
        calls = [await called(http, "fhirPatientRead", id="FCE57")]
        login = await http.get("/auth/login")
        await through_the_hospital(lone_mesh, http, login.headers["location"])
        calls.append(await called(http, "fhirPatientRead", id="FCE57"))
        calls.append(await called(http, "fhirResourceSearch", **search))
        calls.append(await called(http, "fhirResourceDelete", resourceType="Patient", id="FCE57"))
        person = {"resourceType": "Patient", "name": [{"family": "Trail"}]}
        calls.append(await called(http, "fhirPatientCreate", resource=person))
    for call in calls:
        await until_event(lone_mesh, call)
    trail = await covering(lone_mesh, tmp_path, len(calls))
    rows = [(r["action"], r["status"], r["targetResourceType"], r["targetResourceId"]) for r in trail]
    assert rows[:3] == [
        ("fhirPatientReadAttempt", "attempt", "Patient", "FCE57"),
        ("cerbos:read", "failure", "Patient", "FCE57"),
        ("fhirPatientRead", "failure", "Patient", "FCE57"),
    ]
    assert {record["principalId"] for record in trail[:3]} == {"anonymous"}
    assert (trail[2]["outcomeDescription"], trail[2]["responseStatus"]) == ("FHIR client not available.", 401)
    assert [row[1] for row in rows[3:6]] == ["attempt", "success", "success"]
    assert trail[5]["responseStatus"] == 200
    assert rows[6:9] == [
        ("fhirResourceSearchAttempt", "attempt", "Observation", None),
        ("cerbos:search", "success", "Observation", None),
        ("fhirResourceSearch", "success", "Observation", None),
    ]
    assert {str(record["searchParams"]) for record in trail[6:9]} == {str(search["searchParams"])}
    assert [row[:2] for row in rows[9:12]] == [
        ("fhirResourceDeleteAttempt", "attempt"),
        ("cerbos:delete", "failure"),
        ("fhirResourceDelete", "failure"),
    ]
    assert (trail[11]["responseStatus"], rows[11][3]) == (403, "FCE57")
    assert [row[:2] for row in rows[12:15]] == [
        ("fhirPatientCreateAttempt", "attempt"),
        ("cerbos:create", "success"),
        ("fhirPatientCreate", "success"),
    ]
    assert rows[14][3], "the id that the platform chose"
    for record in trail:
        assert TRAIL <= record.keys() <= TRAIL | {"searchParams", "responseStatus"}
        assert datetime.fromisoformat(record["timestamp"])
    assert len({record["principalId"] for record in trail[3:]}) == 1


@pytest.mark.requirement("FG-19")
async def test_the_logger_writes_the_events_of_the_ledger_when_its_role_is_on(lone_mesh: Any, tmp_path: Path) -> None:
    async with browser(lone_mesh) as http:
        login = await http.get("/auth/login")
        await through_the_hospital(lone_mesh, http, login.headers["location"])
        known = await called(http, "fhirPatientRead", id="DP100")
        await http.get("/auth/logout")

    def lines() -> list[dict[str, Any]]:
        found = [line for line in lone_mesh.logs("audit-1") if line.get("logger") == "fhir.audit"]
        return [{name: value for name, value in line.items() if name != "process"} for line in found]

    async def there() -> list[dict[str, Any]]:
        found = lines()
        read = next((n for n, line in enumerate(found) if line["details"].get("request_id") == known), len(found))
        return found if "session.destroy" in {line["event"] for line in found[read:]} else []

    said = await until(there)
    (read_line,) = [line for line in said if line["details"].get("request_id") == known]
    assert (read_line["event"], read_line["success"]) == ("resource.read", True)
    assert (read_line["resource_type"], read_line["resource_id"]) == ("Patient", "DP100")
    assert read_line["platform_id"] == "local-smart-clinician"
    assert 0 < len(read_line["session_id"]) <= 16
    assert read_line["user_id"]
    assert {"auth.start", "auth.success", "session.create", "session.destroy"} <= {line["event"] for line in said}
    # Not recorded twice: the export of the ledger says the same of the same event.
    written = {line["details"]["id"]: line for line in exported(lone_mesh, tmp_path, "fhir.audit.ndjson")}
    assert written[read_line["details"]["id"]] == read_line


@pytest.mark.requirement("SM-9", "SM-13")
async def test_the_named_origin_may_come_with_credentials(lone_mesh: Any) -> None:
    async with browser(lone_mesh) as http:
        asked = {"origin": "https://app.test", "access-control-request-method": "POST"}
        answer = await http.options("/sse", headers=asked)
        assert answer.headers["access-control-allow-origin"] == "https://app.test"
        assert answer.headers["access-control-allow-credentials"] == "true"


@pytest.mark.requirement("FG-33")
async def test_a_redis_url_is_not_used_and_one_line_says_where_sessions_are_kept(lone_mesh: Any) -> None:
    lines = [line["message"] for line in lone_mesh.logs("gateway-1")]
    told = [text for text in lines if "Redis" in text]
    assert set(told) == {"sessions are kept in PostgreSQL by the auth service; the Redis URL is not used"}
