"""The sign-in tools and the handle on every tool (FG-22, FG-26), with auth scripted."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from gateway.rest_stage import READER, FakeDelivery, Stage, ok, refused
from wardmesh_common.contracts import Call, Reply
from wardmesh_common.errors import Unavailable
from wardmesh_common.vocabulary import Face, Interaction
from wardmesh_gateway.sign_in import SLICE_SECONDS, SignIn

pytestmark = pytest.mark.anyio
P = "smarthealthit-sandbox-patient"
STARTED = {
    "authorization_url": f"http://gateway.test/auth/{P}/login?session=one", "state": "s", "platform_id": P,
    "auth_handle": "h1", "message": "m", "expires_at": 1,
}  # fmt: skip


async def tool(stage: Stage, name: str, arguments: dict[str, Any], headers: dict[str, str] = READER) -> httpx.Response:
    sent = {"content-type": "application/json", **headers}
    return await stage.send("POST", f"/v1/tools/{name}", headers=sent, content=json.dumps(arguments))


def said(body: dict[str, Any]) -> Reply:
    return ok(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("name", "arguments", "body"),
    [
        ("start_auth", {"platform_id": "smart", "scopes": ["openid", "patient/*.rs"]}, STARTED),
        ("complete_auth", {"platform_id": P, "code": "c", "state": "s"}, {"success": True, "platform_id": P}),
        ("get_auth_status", {"platform_id": P}, {"platform_id": P, "authenticated": False}),
        ("get_auth_status", {}, {"platforms": {}}),
        ("revoke_auth", {"platform_id": P}, {"success": True, "message": f"Revoked authentication for {P}"}),
        ("wait_for_auth", {"platform_id": P, "timeout": 5}, {"success": True, "platform_id": P, "expires_in": 9}),
    ],
)
async def test_each_tool_is_one_operation_of_auth(name: str, arguments: dict[str, Any], body: dict[str, Any]) -> None:
    stage = Stage()
    stage.bus.reply = said(body)
    answer = await tool(stage, name, arguments)
    assert (answer.status_code, answer.json()) == (200, body)
    call = stage.bus.call
    assert (call.performer, call.tool, call.interaction) == ("auth", name, Interaction.OPERATION)
    expected = dict(arguments) | ({"platform_id": P} if "platform_id" in arguments else {})
    assert json.loads(stage.bus.bodies[0] or b"") == expected
    assert call.platform == expected.get("platform_id", "")


async def test_the_secret_of_a_browser_never_reaches_a_tool_caller() -> None:
    stage = Stage()
    stage.bus.reply = said({**STARTED, "session": "CANARY", "max_age": 60})
    assert (await tool(stage, "start_auth", {"platform_id": P})).json() == STARTED


async def test_names_and_platforms_are_checked_before_auth_is_asked() -> None:
    stage = Stage()
    for arguments, status, error in (
        ({"platform_id": "nowhere"}, 404, "platform_not_found"),
        ({"platform_id": "aetna"}, 400, "oauth_not_configured"),
        ({"platform_id": P, "scopes": ["a b"]}, 400, "validation_error"),
        ({}, 400, "validation_error"),
    ):
        answer = await tool(stage, "start_auth", arguments)
        assert (answer.status_code, answer.json()["error"]) == (status, error)
    text = "Platform 'aetna' does not have OAuth configured"
    assert (await tool(stage, "start_auth", {"platform_id": "aetna"})).json()["message"] == text
    assert (await tool(stage, "wait_for_auth", {"platform_id": P, "timeout": 601})).status_code == 400
    assert (await tool(stage, "wait_for_auth", {"platform_id": P, "timeout": 0})).status_code == 400
    assert (await tool(stage, "start_auth", {"platform_id": P}, {"x-nobody": "1"})).status_code == 401
    assert stage.bus.calls == []


async def test_codes_of_auth_reach_the_caller_in_the_words_of_the_contract() -> None:
    stage = Stage()
    for status, code, shown in (
        (400, "invalid_request", "invalid_request"),
        (401, "invalid_auth_handle", "invalid_auth_handle"),
        (400, "session_error", "session_error"),
        (503, "unavailable", "upstream_unavailable"),
    ):
        stage.bus.reply = refused(status, code, "why")
        answer = await tool(stage, "get_auth_status", {"platform_id": P})
        assert (answer.status_code, answer.json()) == (status, {"error": shown, "message": "why"})


async def test_a_handle_stands_for_a_caller_that_has_nothing_else_on_every_tool() -> None:
    stage = Stage()
    nobody = {"x-nobody": "1"}
    target = {"platform_id": "store", "resource_type": "Patient", "resource_id": "p1"}
    assert (await tool(stage, "read", target, nobody)).status_code == 401
    answer = await tool(stage, "read", {**target, "auth_handle": "CANARY-HANDLE"}, nobody)
    assert answer.status_code == 200
    assert stage.bus.call.caller.handle == "CANARY-HANDLE"
    stage.bus.reply = said({"platforms": {}})
    await tool(stage, "get_auth_status", {"auth_handle": "CANARY-HANDLE"}, nobody)
    assert stage.bus.calls[-1].caller.handle == "CANARY-HANDLE"
    assert b"CANARY" not in (stage.bus.bodies[-1] or b"")


async def test_an_answer_names_its_record_and_the_platform_that_stands_in() -> None:
    stage = Stage()
    stage.bus.reply = Reply(call_id="c" * 32, status=200, body=b'{"resourceType":"Patient","id":"p1"}')
    target = {"platform_id": "epic", "resource_type": "Patient", "resource_id": "p1"}
    answer = await tool(stage, "read", target)
    assert (answer.headers["x-request-id"], answer.headers["x-wardmesh-platform"]) == ("c" * 32, "store")


# --- waiting ---


class Times:
    """A clock that the scripted auth moves: waiting costs no time."""

    def __init__(self, stage: Stage, *answers: Any) -> None:
        self.now = 0.0
        self.slices: list[int] = []
        self.answers = list(answers)
        self.stage = stage
        stage.bus.reply = self._answer
        parts = stage.parts
        self.sign_in = SignIn(parts.door, parts.procedures, lambda: self.now)

    async def _answer(self, call: Call) -> FakeDelivery:
        seconds = json.loads(self.stage.bus.bodies[-1] or b"")["timeout"]
        self.slices.append(seconds)
        self.now += seconds
        answer = self.answers.pop(0) if self.answers else {"success": False, "pending": True}
        if isinstance(answer, Exception):
            raise answer
        return FakeDelivery(answer if isinstance(answer, Reply) else said(answer))

    async def wait(self, **arguments: Any) -> Any:
        visit = await self.stage.parts.callers.visit(
            {"headers": [(b"authorization", b"Bearer doctor:fhir.read")], "client": ("203.0.113.7", 1)}
        )
        answered = await self.sign_in.wait_for_tool({"platform_id": P, **arguments}, visit, Face.MCP)
        return json.loads(answered.body)


DONE = {"success": True, "platform_id": P, "expires_in": 3600, "message": "Authentication completed"}
PENDING = {"success": False, "pending": True}


async def test_a_wait_is_cut_into_slices_and_ends_as_soon_as_auth_says_so() -> None:
    times = Times(Stage(), PENDING, PENDING, DONE)
    assert await times.wait(timeout=600) == DONE
    assert times.slices == [SLICE_SECONDS] * 3


async def test_a_wait_that_the_caller_measured_ends_with_timeout_and_not_before() -> None:
    times = Times(Stage())
    with pytest.raises(Exception, match="not finished in time") as caught:
        await times.wait(timeout=25)
    assert caught.value.problem.code == "timeout"  # type: ignore[attr-defined]
    assert times.slices == [10, 10, 5]


async def test_where_the_length_is_ours_to_choose_a_wait_stays_below_a_minute() -> None:
    times = Times(Stage())
    answer = await times.wait()
    assert (answer["success"], answer["pending"], answer["platform_id"]) == (False, True, P)
    assert sum(times.slices) == 50


async def test_a_wait_outlives_a_replica_of_auth_and_not_its_absence() -> None:
    times = Times(Stage(), PENDING, Unavailable("gone"), DONE)
    assert await times.wait(timeout=60) == DONE
    times = Times(Stage(), *[Unavailable("gone")] * 9)
    with pytest.raises(Unavailable):
        await times.wait(timeout=600)
    assert len(times.slices) == 5


async def test_a_refusal_of_auth_ends_a_wait_at_once() -> None:
    times = Times(Stage(), refused(400, "session_error", "the sign-in failed"))
    with pytest.raises(Exception, match="the sign-in failed"):
        await times.wait(timeout=600)
    assert len(times.slices) == 1


async def test_a_stopping_gateway_tells_waiters_to_ask_again() -> None:
    times = Times(Stage(), PENDING, DONE)
    times.sign_in.close()
    assert (await times.wait(timeout=600))["pending"]


async def test_one_caller_waits_once_for_a_platform_over_all_replicas() -> None:
    stage, other = Stage(), Stage()
    begun, release = asyncio.Event(), asyncio.Event()

    async def hold(call: Call) -> FakeDelivery:
        begun.set()
        await release.wait()
        return FakeDelivery(said(DONE))

    stage.bus.reply = other.bus.reply = hold
    cookie = {"cookie": "app_session=" + "x" * 43}
    path = f"/auth/{P}/wait"
    first = asyncio.create_task(stage.send("GET", path, headers=cookie))
    await asyncio.wait_for(begun.wait(), 60)
    already = {"success": False, "message": "Authentication timed out or already waiting"}
    assert (await stage.send("GET", path, headers=cookie)).json() == already
    for _, report in [told for told in stage.bus.told if told[0] == "gw.wait"]:
        await other.parts.waiters.on_report(type(report)(replica="gateway-2", digest=report.digest, waiting=True))
    assert (await other.send("GET", path, headers=cookie)).json() == already
    release.set()
    assert (await asyncio.wait_for(first, 60)).json()["success"]
    assert (await stage.send("GET", path, headers=cookie)).json()["success"]
    assert b"xxx" not in b"".join(report.digest for _, report in stage.bus.told if hasattr(report, "digest"))


async def test_a_refusal_for_want_of_a_sign_in_carries_the_link_as_over_mcp() -> None:
    stage = Stage()
    carried: list[str] = []

    async def reply(call: Call) -> FakeDelivery:
        carried.append(call.caller.handle)
        return FakeDelivery(
            said(STARTED) if call.tool == "start_auth" else refused(401, "sign_in_required", "Sign in.")
        )

    stage.bus.reply = reply
    wanted = {"platform_id": P, "resource_type": "Patient", "resource_id": "p1", "auth_handle": "mine"}
    answer = await tool(stage, "read", wanted)
    body = answer.json()
    assert (answer.status_code, body["error"]) == (401, "session_error")
    assert "resource_metadata=" in answer.headers["www-authenticate"]
    assert {name: body[name] for name in ("authorization_url", "platform_id", "auth_handle")} == {
        name: STARTED[name] for name in ("authorization_url", "platform_id", "auth_handle")
    }
    assert "authorization_url" in body["message"]
    assert carried == ["mine", "mine"]


async def test_whoever_can_start_no_sign_in_is_told_only_that_one_is_needed() -> None:
    stage = Stage()
    stage.bus.reply = refused(401, "sign_in_required", "Sign in.")
    answer = await tool(stage, "read", {"platform_id": P, "resource_type": "Patient", "resource_id": "p1"})
    assert answer.json() == {"error": "session_error", "message": "Sign in."}
