"""Emergency access at the gateway: opened by a procedure of auth, carried by one header on REST, FHIR and tools."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from gateway.rest_stage import READER, Stage, ok

PASS = {"x-break-glass": "the-pass", **READER}
OPENING = {"platform_id": "store", "patient_id": "p1", "reason_code": "unconscious", "reason": "found"}
JSON = {"content-type": "application/json", "x-requested-with": "test"}


@pytest.mark.requirement("B-14")
@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/api/fhir/store/Patient/p1", None),
        ("GET", "/fhir/store/Patient/p1", None),
        ("POST", "/v1/tools/read", {"platform_id": "store", "resource_type": "Patient", "resource_id": "p1"}),
    ],
)
def test_the_pass_travels_with_the_call_of_every_face(method: str, target: str, body: dict[str, Any] | None) -> None:
    stage = Stage()
    content = json.dumps(body).encode() if body else None
    answer = asyncio.run(stage.send(method, target, headers={**JSON, **PASS}, content=content))
    assert answer.status_code == 200
    assert stage.bus.call.caller.emergency == "the-pass"
    assert stage.bus.call.emergency is None, "only auth says what the pass is worth"


@pytest.mark.requirement("B-14")
def test_opening_and_closing_are_procedures_of_auth_that_need_somebody() -> None:
    stage = Stage()
    stage.bus.reply = ok(b'{"break_glass":"sealed","id":"e1","expires_in":900}')
    opening = json.dumps(OPENING).encode()
    nobody = asyncio.run(stage.send("POST", "/api/break-glass", headers=JSON, content=opening))
    assert nobody.status_code == 401 and not stage.bus.calls
    answer = asyncio.run(stage.send("POST", "/api/break-glass", headers={**JSON, **READER}, content=opening))
    assert answer.json() == {"break_glass": "sealed", "id": "e1", "expires_in": 900}
    assert answer.headers["cache-control"] == "no-store"
    call = stage.bus.call
    assert (call.performer, call.tool, call.platform) == ("auth", "open_break_glass", "store")
    assert msgspec.json.decode(stage.bus.bodies[0] or b"") == OPENING
    stage.bus.calls.clear()
    closing = b'{"platform_id":"store","break_glass":"sealed"}'
    asyncio.run(stage.send("POST", "/api/break-glass/close", headers={**JSON, **READER}, content=closing))
    assert stage.bus.call.tool == "close_break_glass"
    assert msgspec.json.decode(stage.bus.bodies[-1] or b"") == {"platform_id": "store", "emergency": "sealed"}


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"{", 400), (b"[]", 400), (b'{"platform_id":1,"patient_id":"p"}', 400), (b'{"platform_id":"nowhere"}', 400)],
)
def test_what_is_no_request_for_emergency_access_gets_a_clear_refusal(content: bytes, status: int) -> None:
    stage = Stage()
    answer = asyncio.run(stage.send("POST", "/api/break-glass", headers={**JSON, **READER}, content=content))
    assert answer.status_code == status and "Invalid body" in answer.json()["detail"]
    assert not stage.bus.calls


@pytest.mark.requirement("B-14")
def test_a_refusal_at_the_door_records_no_pass() -> None:
    """The door keeps what it records free of credentials, and the pass is one."""
    stage = Stage()
    headers = {"authorization": "Bearer doctor:audit.read", "x-break-glass": "the-pass"}
    assert asyncio.run(stage.send("GET", "/api/fhir/store/Patient/p1", headers=headers)).status_code == 403
    ((call, _),) = stage.bus.recorded
    assert call.caller.emergency == "" and b"the-pass" not in msgspec.msgpack.encode(call)
