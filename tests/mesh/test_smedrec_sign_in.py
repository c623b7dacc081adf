"""A deployment of the SMART server: one client signs in at the hospital, uses the tools on /sse, and leaves (SM-1)."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(120)]
SM_COOKIES = {"FHIR_AUTH_STATE_COOKIE", "FHIR_PKCE_VERIFIER_COOKIE", "FHIR_SESSION_COOKIE"}
_ACTION = re.compile(r'action="([^"]+)"')


@asynccontextmanager
async def browser(mesh: Any) -> AsyncGenerator[httpx2.AsyncClient]:
    """Keeps cookies, the Secure ones too, as browsers do for this machine."""
    async with httpx2.AsyncClient(base_url=mesh.ready["gateway"], timeout=40) as http:

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
        answer = (await http.post("/sse", json={**asked, "params": {"resource": resource}})).json()
        said = answer["error"]["message"]
        assert re.fullmatch(
            r"Forbidden: User \S+ with roles \[practitioner\] not authorized to perform 'create' on Organization/\*\.",
            said,
        ), said


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
