"""The public edge of a running mesh: nobody without a good token for exactly this audience, headers on every answer."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

pytestmark = [pytest.mark.anyio, pytest.mark.mesh, pytest.mark.timeout(400)]

MCP_PATHS = ("/mcp", "/mcp/")
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


@pytest.fixture
async def http(mesh: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=mesh.ready["gateway"], timeout=60) as client:
        yield client


def signed(mesh: Any, **changes: Any) -> str:
    """A token of the real issuer's key for demo_doctor, with other claims or another header where `changes` say so."""
    keys = json.loads((Path(mesh.ready["state"]) / "idp" / "keys.json").read_text())["jwks"]["keys"]
    key = RSAKey.import_key(keys[0])
    header = {"alg": "RS256", "typ": changes.pop("typ", "at+jwt"), "kid": str(key.kid)}
    now = int(time.time())
    claims = {
        "iss": mesh.ready["issuer"],
        "aud": mesh.ready["audience"],
        "sub": "demo_doctor",
        "client_id": "wardmesh-cli",
        "scope": "fhir.read",
        "roles": ["Doctor"],
        "iat": now,
        "exp": now + 300,
        "jti": secrets.token_hex(8),
    }
    return jwt.encode(header, {**claims, **changes}, key)


@pytest.mark.requirement("OA-2", "OA-3")
@pytest.mark.parametrize("path", MCP_PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "PATCH"])
async def test_without_a_token_everything_on_mcp_is_401(http: httpx.AsyncClient, path: str, method: str) -> None:
    for body in (b"", b"no JSON", json.dumps(LIST).encode()):
        answer = await http.request(method, path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 401
        challenge = answer.headers["www-authenticate"]
        assert challenge.startswith("Bearer resource_metadata=")
        assert "error=" not in challenge


@pytest.mark.requirement("OA-9")
@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "http://localhost:1/mcp"},
        {"aud": ["https://other.example/mcp"]},
        {"aud": None},
        {"iss": "http://127.0.0.1:1"},
        {"exp": 1},
        {"typ": "JWT"},
    ],
    ids=str,
)
async def test_a_token_for_somebody_else_is_refused_by_every_face(
    mesh: Any, http: httpx.AsyncClient, changes: dict[str, Any]
) -> None:
    good = {"authorization": f"Bearer {signed(mesh)}"}
    assert (await http.get("/fhir/own/Patient/p1", headers=good)).status_code == 200, "the forged key is the real one"
    wrong = {"authorization": f"Bearer {signed(mesh, **changes)}"}
    for path in ("/api/fhir/own/Patient/p1", "/fhir/own/Patient/p1"):
        answer = await http.get(path, headers=wrong)
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    for path in MCP_PATHS:
        assert (await http.post(path, json=LIST, headers=wrong)).status_code == 401
    tool = await http.post("/v1/tools/read", json={}, headers=wrong)
    assert tool.status_code == 401


async def test_the_ready_file_tells_all_that_a_user_of_the_mesh_needs(mesh: Any, http: httpx.AsyncClient) -> None:
    ready = mesh.ready
    for name in ("gateway", "mcp", "issuer", "store", "nats", "postgres", "conformance"):
        assert "://" in ready[name], name
    assert ready["store_platform"] == "store"
    assert ready["audit_public_key"].count("+") >= 2
    engines = {"postgres", "nats", "cerbos", "idp", "hospital", "witness", "fhir-store", "wardmesh"}
    assert set(ready["processes"]) == engines | {"gateway", "auth", "policy", "fhir-proxy", "audit", "balancer"}
    assert all(Path(f"/proc/{pid}").is_dir() for pids in ready["processes"].values() for pid in pids)
    six = {f"demo_{name}" for name in ("admin", "doctor", "nurse", "billing", "reception", "auditor")}
    assert six <= set(ready["people"])
    for person in ready["people"].values():
        assert person["password"] and person["role"]
        answer = await http.get("/fhir/own/Patient/p1", headers={"authorization": f"Bearer {person['token']}"})
        assert answer.status_code != 401


@pytest.mark.requirement("FG-18")
async def test_security_headers_are_on_answers_of_every_kind(mesh: Any, http: httpx.AsyncClient) -> None:
    bearer = {"authorization": f"Bearer {mesh.token('demo_doctor')}"}
    answers = [
        await http.get("/health"),
        await http.get("/api/platforms"),
        await http.get("/docs"),
        await http.get("/openapi.json"),
        await http.get("/nothing/here"),
        await http.get("/mcp"),
        await http.get("/.well-known/oauth-protected-resource/mcp"),
        await http.get("/api/fhir/own/Patient/p1"),
        await http.get("/api/fhir/own/Patient/p1", headers=bearer),
        await http.get("/fhir/own/Patient/absent", headers=bearer),
        await http.post("/v1/tools/read", json={}, headers=bearer),
    ]
    assert {answer.status_code for answer in answers} >= {200, 400, 401, 404}
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff", answer.url
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "strict-origin-when-cross-origin"
        assert "server" not in answer.headers or "uvicorn" not in answer.headers["server"]
