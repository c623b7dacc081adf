"""Headers on every answer: security and CORS (FG-18, FG-30)."""

from __future__ import annotations

import pytest

from gateway.rest_stage import READER, Stage

pytestmark = pytest.mark.anyio

EVERYWHERE = [
    ("GET", "/health"),
    ("GET", "/api/platforms"),
    ("GET", "/nowhere"),
    ("GET", "/openapi.json"),
    ("GET", "/redoc"),
    ("GET", "/api/fhir/store/Patient"),
    ("GET", "/api/fhir/store/patient"),
    ("GET", "/fhir/store/Patient"),
    ("GET", "/fhir/store/patient"),
    ("POST", "/v1/tools/read"),
    ("POST", "/v1/tools/nothing"),
    ("DELETE", "/health"),
    ("OPTIONS", "/health"),
]


@pytest.mark.requirement("FG-18")
@pytest.mark.parametrize(("method", "path"), EVERYWHERE)
async def test_every_answer_carries_the_security_headers(method: str, path: str) -> None:
    stage = Stage()
    answer = await stage.send(method, path, headers=READER)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "strict-origin-when-cross-origin"
    assert "strict-transport-security" not in answer.headers
    assert ("content-security-policy" in answer.headers) == answer.headers.get("content-type", "").startswith(
        "text/html"
    )
    secure = Stage(public_url="https://gateway.test")
    assert "strict-transport-security" in (await secure.send(method, path, headers=READER)).headers


@pytest.mark.requirement("FG-30")
@pytest.mark.parametrize(
    ("setting", "origin", "allowed", "credentials"),
    [
        ("*", "https://any.test", "*", None),
        ("https://app.test", "https://app.test", "https://app.test", "true"),
        ("https://app.test", "https://evil.test", None, None),
        ("https://app.test, *", "https://app.test", "https://app.test", "true"),
        ("https://app.test, *", "https://other.test", "*", None),
        ("", "https://app.test", None, None),
    ],
)
async def test_a_star_never_goes_with_credentials(
    setting: str, origin: str, allowed: str | None, credentials: str | None
) -> None:
    stage = Stage(cors_origins=setting)
    answer = await stage.get("/api/fhir/store/Patient", {**READER, "origin": origin})
    assert answer.headers.get("access-control-allow-origin") == allowed
    assert answer.headers.get("access-control-allow-credentials") == credentials
    asked = {"origin": origin, "access-control-request-method": "PUT", "access-control-request-headers": "if-match"}
    preflight = await stage.send("OPTIONS", "/api/fhir/store/Patient/1", headers=asked)
    assert preflight.status_code == (204 if allowed else 403)
    assert preflight.headers.get("access-control-allow-origin") == allowed
    assert preflight.headers.get("access-control-allow-credentials") == credentials
    if allowed:
        assert "Authorization" in preflight.headers["access-control-allow-headers"]
        assert "*" not in preflight.headers["access-control-allow-headers"]
    assert len(stage.bus.calls) == 1
