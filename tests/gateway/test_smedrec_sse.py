"""/sse: streamable HTTP, notification streams, the older transport, tools as methods, and who counts as whom (SM-4)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import httpx
import pytest
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from gateway.mcp_stage import Hub, modern_meta
from gateway.rest_stage import READER, refused
from gateway.sse_stage import HELLO, Served, listening, request, sse_stage
from wardmesh_common.contracts import EVENT_CATALOGUE_CHANGED, EVENT_POLICY_CHANGED
from wardmesh_gateway.mcp_narrowing import NOT_ALLOWED
from wardmesh_gateway.sse_edge import MOST_FIELDS
from wardmesh_gateway.sse_streams import MOST_OF_ONE, MOST_WAITING, Stream

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
READ = request("tools/call", {"name": "fhirPatientRead", "arguments": {"id": "p1"}}, 7)
NO_SESSION = "Bad Request: No valid MCP session ID provided or not an init request."
TOKEN = {"authorization": READER["authorization"]}


def refusal(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()


@pytest.mark.requirement("SM-4")
async def test_a_post_needs_a_session_or_begins_one_or_is_of_the_stateless_era() -> None:
    async with sse_stage() as served:
        error = {"jsonrpc": "2.0", "error": {"code": -32000, "message": NO_SESSION}}
        assert refusal(await served.post(READ)) == (400, {**error, "id": 7})
        assert refusal(await served.post(READ, mcp_session_id="made-up")) == (400, {**error, "id": 7})
        session = await served.begin()
        found = await served.post(READ, mcp_session_id=session)
        assert found.json()["result"]["structuredContent"]["id"] == "p1"
        assert served.stage.bus.call.caller.agent.id == "cursor-agent-v1.0.0"
        told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await served.post(told, mcp_session_id=session)).status_code == 202
        params = {"name": "fhirPatientRead", "arguments": {"id": "p1"}, "_meta": modern_meta()}
        modern = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call", "mcp_name": "fhirPatientRead"}
        stateless = await served.post(request("tools/call", params), **modern)
        assert stateless.json()["result"]["structuredContent"]["id"] == "p1"


@pytest.mark.requirement("SM-4")
async def test_a_session_ends_on_every_replica_and_a_new_replica_hears_of_it() -> None:
    hub = Hub()
    async with sse_stage(hub, "gateway-00000001") as one, sse_stage(hub, "gateway-00000002") as two:
        session = await one.begin()
        invalid = {"message": "Invalid or missing session ID"}
        assert refusal(await two.http.delete("/sse")) == (400, invalid)
        async with listening(one, mcp_session_id=session) as events:
            assert (await two.http.delete("/sse", headers={"mcp-session-id": session})).status_code == 204
            assert await asyncio.wait_for(events.next(), 60) == ("end", "")
        for served in (one, two):
            assert (await served.post(READ, mcp_session_id=session)).json()["error"]["message"] == NO_SESSION
        async with sse_stage(hub, "gateway-00000003") as three:
            assert (await three.post(READ, mcp_session_id=session)).status_code == 400


@pytest.mark.requirement("SM-4")
async def test_a_get_is_a_stream_of_notifications_or_the_older_transport_or_a_refusal() -> None:
    async with sse_stage() as served:
        invalid = {"message": "Invalid or missing session ID"}
        assert refusal(await served.http.get("/sse", headers={"accept": "application/json"})) == (400, invalid)
        unknown = {"accept": "text/event-stream", "mcp-session-id": "made-up"}
        assert refusal(await served.http.get("/sse", headers=unknown)) == (400, invalid)
        session = await served.begin()
        async with listening(served, mcp_session_id=session) as events:
            assert events.answer.headers["content-type"].startswith("text/event-stream")
            await served.hears.changed(EVENT_POLICY_CHANGED)
            name, data = await asyncio.wait_for(events.next(), 60)
            assert (name, json.loads(data)["method"]) == ("message", "notifications/tools/list_changed")
        async with listening(served) as events:
            name, data = await asyncio.wait_for(events.next(), 60)
            assert name == "endpoint"
            assert data.startswith("/sse?sessionId=")
        assert (await served.http.put("/sse", json={})).status_code == 405


@pytest.mark.requirement("SM-4")
async def test_on_the_older_transport_a_post_to_any_replica_is_answered_on_the_stream() -> None:
    hub = Hub()
    async with sse_stage(hub, "gateway-00000001") as one, sse_stage(hub, "gateway-00000002") as two:
        async with listening(one) as events:
            _, address = await asyncio.wait_for(events.next(), 60)
            for served, message in ((two, request("initialize", HELLO, "a")), (one, READ)):
                accepted = await served.post(message, address)
                assert (accepted.status_code, accepted.content) == (202, b"")
                _, data = await asyncio.wait_for(events.next(), 60)
                assert json.loads(data)["id"] == message["id"]
            assert json.loads(data)["result"]["structuredContent"]["id"] == "p1"
            assert one.stage.bus.call.caller.agent.id == "cursor-agent-v1.0.0", "what initialize said is kept"
            direct = await two.post({"method": "fhirPatientRead", "params": {"id": "p1"}, "id": 9}, address)
            assert direct.status_code == 202
            assert json.loads((await asyncio.wait_for(events.next(), 60))[1])["id"] == 9
            stranger = await one.post(READ, address, **TOKEN)
            assert stranger.status_code == 404, "somebody with a token is not who opened the stream"
            large = request("tools/call", {"name": "fhirPatientRead", "arguments": {"id": "p" * 1024 * 1024}})
            assert (await one.post(large, address)).status_code == 413
        assert (await one.post(READ, "/sse?sessionId=made-up~gateway-00000001")).status_code == 404


async def test_a_client_of_the_older_transport_takes_tools_away_from_itself_as_well() -> None:
    hub = Hub()
    direct = {"method": "fhirPatientRead", "params": {"id": "p1"}, "id": 7}
    async with (
        sse_stage(hub, "gateway-00000001") as one,
        sse_stage(hub, "gateway-00000002") as two,
        listening(one) as events,
    ):
        _, address = await asyncio.wait_for(events.next(), 60)
        for message in (READ, direct):
            assert (await two.post(message, address, x_mcp_tools="fhirPatientSearch")).status_code == 202
            assert NOT_ALLOWED in (await asyncio.wait_for(events.next(), 60))[1]
        assert one.stage.bus.calls == []


async def test_a_query_with_too_many_parameters_is_told_so() -> None:
    async with sse_stage() as served:
        answer = await served.post(READ, "/sse?" + "&".join(["a=1"] * (MOST_FIELDS + 1)))
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == "The query has too many parameters"


async def test_nobody_holds_more_than_a_share_of_the_streams() -> None:
    async with sse_stage() as served, contextlib.AsyncExitStack() as stack:
        own = [await stack.enter_async_context(listening(served)) for _ in range(MOST_OF_ONE)]
        assert [events.answer.status_code for events in own] == [200] * MOST_OF_ONE
        async with listening(served) as events:
            assert (events.answer.status_code, events.answer.headers["retry-after"]) == (503, "5")
        async with listening(served, **TOKEN) as events:
            assert events.answer.status_code == 200, "somebody else has places of their own"


async def test_a_stream_that_is_not_read_ends_before_it_holds_much() -> None:
    stream = Stream("s", "p", "p")
    large = b"x" * (2 * MOST_WAITING)
    stream.put(large)
    assert await stream.piece() == large, "one answer may be of any size"
    for _ in range(4):
        stream.put(b"x" * (MOST_WAITING // 4))
    assert not stream.gone.is_set()
    stream.put(b"x")
    assert stream.gone.is_set()


@pytest.mark.requirement("SM-4")
@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_the_official_client_speaks_streamable_http_here(mode: str) -> None:
    async with sse_stage() as served, Client(streamable_http_client(f"{served.url}/sse"), mode=mode) as client:
        assert len((await client.list_tools()).tools) == 17
        result = await client.call_tool("fhirPatientRead", {"id": "p1"})
        assert (result.structured_content or {})["id"] == "p1"


@pytest.mark.requirement("SM-4")
async def test_the_official_client_speaks_the_older_transport_here() -> None:
    async with sse_stage() as served, Client(sse_client(f"{served.url}/sse"), mode="legacy") as client:
        assert len((await client.list_tools()).tools) == 17
        result = await client.call_tool("fhirPatientRead", {"id": "p1"})
        assert (result.structured_content or {})["id"] == "p1"


@pytest.mark.requirement("SM-12", "SM-14")
async def test_a_method_may_be_the_name_of_a_tool() -> None:
    async with sse_stage() as served:
        asked = {"method": "fhirResourceRead", "params": {"resourceType": "Patient", "id": "123"}}
        for headers in ({}, {"mcp_session_id": await served.begin()}, TOKEN):
            found = (await served.post({"jsonrpc": "2.0", "id": "x", **asked}, **headers)).json()
            assert (found["id"], found["result"]["structuredContent"]["id"]) == ("x", "p1")
            called = served.stage.bus.calls[-1]
            assert (called.tool, called.resource.type, called.resource.id) == ("fhirResourceRead", "Patient", "123")
        assert (await served.post(asked)).json()["id"] is None
        served.stage.bus.reply = refused(410, "deleted", "gone")
        failed = (await served.post({"jsonrpc": "2.0", "id": 1, **asked})).json()["error"]
        assert (failed["code"], failed["message"]) == (-32000, "FHIR Patient read failed: Status 410")
        wrong = {"jsonrpc": "2.0", "id": 1, "method": "fhirPatientRead", "params": {}}
        assert (await served.post(wrong)).json()["error"]["code"] == -32602
        assert (await served.post({**wrong, "params": []})).status_code == 400
        assert (await served.post({**wrong, "method": "search"})).json()["error"]["message"] == NO_SESSION


async def cors(served: Served, origin: str, method: str) -> httpx.Response:
    asked = {"origin": origin, "access-control-request-method": method}
    return await served.http.options("/sse", headers=asked)


@pytest.mark.requirement("SM-13")
async def test_cors_lets_named_origins_send_credentials_and_nobody_else() -> None:
    origin = "https://app.test"
    async with sse_stage(cors_origins=origin) as served:
        for method in ("POST", "GET", "PATCH", "DELETE"):
            answer = await cors(served, origin, method)
            methods = {name.strip() for name in answer.headers["access-control-allow-methods"].split(",")}
            names = {name.strip().lower() for name in answer.headers["access-control-allow-headers"].split(",")}
            assert answer.status_code == 204
            assert methods >= {"POST", "GET", "PATCH", "OPTIONS", "DELETE"}
            mcp = {"mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name", "last-event-id", "x-mcp-tools"}
            assert names >= {"content-type", "authorization", *mcp}
            assert answer.headers["access-control-max-age"] == "600"
            assert answer.headers["access-control-allow-origin"] == origin
            assert answer.headers["access-control-allow-credentials"] == "true"
        begun = await served.post(request("initialize", HELLO), origin=origin)
        assert begun.headers.get_list("access-control-allow-origin") == [origin]
        assert "mcp-session-id" in begun.headers["access-control-expose-headers"].lower()
        assert (await cors(served, "https://evil.test", "POST")).status_code == 403
        assert (await served.post(READ, origin="https://evil.test")).status_code == 403
    async with sse_stage(cors_origins="*") as served:
        anyone = await cors(served, "https://any.test", "POST")
        assert anyone.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in anyone.headers
        stolen = await served.post(READ, origin="https://any.test", cookie="FHIR_SESSION_COOKIE=s")
        assert stolen.status_code == 403, "a page of anybody may not use somebody's cookie"


async def test_a_cookie_a_token_and_nobody_are_told_apart() -> None:
    async with sse_stage() as served:
        session = await served.begin()
        for headers, seen in (
            ({"cookie": "fhir_session=s1"}, ("s1", "")),
            ({"cookie": "FHIR_SESSION_COOKIE=s2"}, ("s2", "")),
            ({}, ("", "")),
        ):
            assert (await served.post(READ, mcp_session_id=session, **headers)).status_code == 200
            caller = served.stage.bus.calls[-1].caller
            assert (caller.cookie, caller.bearer) == seen
        answer = await served.post(READ, mcp_session_id=session, **TOKEN)
        assert answer.status_code == 400, "a session of nobody is not one of a token"
        bad = await served.post(READ, authorization="Bearer nonsense")
        assert bad.status_code == 401
        assert 'error="invalid_token"' in bad.headers["www-authenticate"]
        write = request("fhirResourceDelete", {"resourceType": "Patient", "id": "p"})
        assert (await served.post(write, **TOKEN)).status_code == 403, "the token lacks fhir.write"


@pytest.mark.requirement("X-28")
async def test_closing_one_request_leaves_the_others_alone() -> None:
    async with sse_stage() as served:
        session = await served.begin()
        async with listening(served, mcp_session_id=session) as kept:
            async with listening(served, mcp_session_id=session):
                pass
            assert (await served.post(READ, mcp_session_id=session)).status_code == 200
            await served.hears.changed(EVENT_CATALOGUE_CHANGED)
            assert (await asyncio.wait_for(kept.next(), 60))[0] == "message"
