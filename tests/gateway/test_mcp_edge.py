"""The edge of /mcp: who gets in, what is refused, and that every refusal speaks JSON-RPC."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from gateway.mcp_stage import MODERN, READER, WRITER, modern_meta, result_of, stage

pytestmark = pytest.mark.anyio

METADATA_PATHS = [
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/mcp",
    "/mcp/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/mcp/gateway",
]


@pytest.mark.requirement("OA-1", "B-9")
@pytest.mark.parametrize("path", METADATA_PATHS)
async def test_resource_metadata_is_found_wherever_clients_look(path: str) -> None:
    async with stage() as s:
        assert s.face.owns(path)
        answer = await s.client.get(path)
    assert answer.status_code == 200
    assert answer.json()["resource"] == "http://gateway.test/mcp"
    assert answer.json()["authorization_servers"] == ["http://issuer.test"]
    assert answer.json()["scopes_supported"] == ["fhir.read"]


@pytest.mark.requirement("OA-2")
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/", "/mcp/gateway", "/mcp/gateway/"])
async def test_without_a_token_every_method_and_body_is_answered_401(method: str, path: str) -> None:
    async with stage() as s:
        answer = await s.client.request(method, path, content=b"this is no JSON")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == -32000


@pytest.mark.requirement("OA-3", "OA-12", "B-9")
async def test_the_challenge_names_an_error_only_when_a_token_was_sent() -> None:
    async with stage() as s:
        bare = await s.client.get("/mcp")
        profile = await s.client.get("/mcp/gateway")
        wrong = await s.client.get("/mcp", headers={"authorization": "Bearer nonsense"})
    metadata = "http://gateway.test/.well-known/oauth-protected-resource/mcp"
    assert bare.headers["www-authenticate"] == f'Bearer resource_metadata="{metadata}", scope="fhir.read"'
    assert f'resource_metadata="{metadata}/gateway"' in profile.headers["www-authenticate"]
    assert 'error="invalid_token"' in wrong.headers["www-authenticate"]
    assert {bare.headers["cache-control"], wrong.headers["cache-control"]} == {"no-store"}


async def test_get_and_delete_are_405_after_the_token() -> None:
    async with stage() as s:
        for method in ("GET", "DELETE"):
            answer = await s.client.request(method, "/mcp", headers={"authorization": f"Bearer {READER}"})
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
            assert "error" in answer.json()


@pytest.mark.requirement("OA-6", "GW-3")
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_write_without_its_scope_is_a_403_before_anything_is_called(era: str) -> None:
    async with stage() as s:
        call = s.modern if era == "modern" else s.legacy
        refused = await call("tools/call", {"name": "delete", "arguments": {}})
        assert s.door.calls == []
        allowed = await call("tools/call", {"name": "delete", "arguments": {}}, token=WRITER)
    assert refused.status_code == 403
    challenge = refused.headers["www-authenticate"]
    assert 'error="insufficient_scope"' in challenge
    assert 'scope="fhir.read fhir.write"' in challenge
    assert "resource_metadata=" in challenge
    assert refused.json()["id"] == 1
    assert result_of(allowed)["structuredContent"] == {"ok": True}


@pytest.mark.requirement("OA-7")
async def test_preflight_is_answered_without_a_token_and_lists_the_real_header_names() -> None:
    async with stage(allowed_origins=("https://app.test",)) as s:
        headers = {"origin": "https://app.test", "access-control-request-method": "POST"}
        answer = await s.client.options("/mcp", headers=headers)
        metadata = await s.client.options(METADATA_PATHS[0], headers=headers)
        challenged = await s.client.post("/mcp", headers={"origin": "https://app.test"})
    allowed = answer.headers["access-control-allow-headers"]
    assert answer.status_code == metadata.status_code == 204
    for name in (
        "Authorization",
        "Mcp-Protocol-Version",
        "Mcp-Method",
        "Mcp-Name",
        "Mcp-Session-Id",
        "Mcp-Param-Region",
    ):
        assert name in allowed
    assert "Mcp-Param-*" not in allowed
    assert challenged.headers["access-control-allow-origin"] == "https://app.test"
    assert "WWW-Authenticate" in challenged.headers["access-control-expose-headers"]


@pytest.mark.requirement("OA-8")
async def test_foreign_hosts_and_origins_are_refused_even_with_a_token() -> None:
    async with stage(allowed_origins=("https://app.test",)) as s:
        token = {"authorization": f"Bearer {READER}"}
        origin = await s.client.post("/mcp", headers=token | {"origin": "https://evil.test"})
        host = await s.client.post("/mcp", headers=token | {"host": "evil.test"})
    assert (origin.status_code, host.status_code) == (403, 421)
    assert "access-control-allow-origin" not in origin.headers


DIFFERENCES: list[tuple[str, dict[str, str]]] = [
    ("another method", {"mcp_method": "tools/list"}),
    ("another tool", {"mcp_name": "read"}),
    ("the same tool in other letters", {"mcp_name": "Search"}),
    ("a broken encoding", {"mcp_name": "=?base64?###?="}),
    ("the legacy version", {"mcp_protocol_version": "2025-11-25"}),
    ("another modern version", {"mcp_protocol_version": "2027-01-01"}),
]


@pytest.mark.requirement("GW-2", "GW-3")
@pytest.mark.parametrize(("case", "headers"), DIFFERENCES, ids=[case for case, _ in DIFFERENCES])
async def test_a_header_that_differs_from_the_body_is_a_mismatch(case: str, headers: dict[str, str]) -> None:
    async with stage() as s:
        answer = await s.modern("tools/call", {"name": "search", "arguments": {"platform_id": "store"}}, **headers)
        assert s.door.calls == []
        assert s.limiter.seen == []
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == -32020
    assert answer.json()["id"] == 1


@pytest.mark.requirement("GW-2")
async def test_an_encoded_name_and_blanks_around_values_are_no_difference() -> None:
    async with stage() as s:
        encoded = f"=?base64?{base64.b64encode(b'search').decode()}?="
        arguments = {"name": "search", "arguments": {"platform_id": "store"}}
        answers = [
            await s.modern("tools/call", arguments, mcp_name=encoded),
            await s.modern("tools/call", arguments, mcp_method="tools/call  ", mcp_name="search "),
        ]
    assert [answer.status_code for answer in answers] == [200, 200]


@pytest.mark.requirement("GW-2")
async def test_a_parameter_mirrored_in_a_header_must_agree() -> None:
    async with stage() as s:
        call = {"name": "routed", "arguments": {"region": "eu"}}
        assert (await s.modern("tools/call", call, mcp_param_region="eu")).status_code == 200
        wrong = await s.modern("tools/call", call, mcp_param_region="us")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, -32020)


async def test_the_rate_limit_sees_principal_and_tool_and_says_when_to_come_back() -> None:
    async with stage() as s:
        await s.modern("tools/call", {"name": "read", "arguments": {}})
        await s.legacy("tools/list")
        s.limiter.wait = 17
        refused = await s.modern("tools/call", {"name": "read", "arguments": {}})
        assert s.limiter.seen == [("p-reader", "read"), ("p-reader", ""), ("p-reader", "read")]
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "17")
    assert refused.json()["id"] == 1


SECRET = "Maria-Canary-1957"
BAD_BODIES: list[tuple[str, Any]] = [
    ("no JSON", f"{{{SECRET}".encode()),
    ("not UTF-8", b'{"jsonrpc": "2.0", "id": 1, "method": "\xff"}'),
    ("a batch", [{"jsonrpc": "2.0", "id": 1, "method": SECRET}]),
    ("no version", {"id": 1, "method": SECRET}),
    ("an id that is a list", {"jsonrpc": "2.0", "id": [SECRET], "method": "ping"}),
    ("params that are a list", {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": [SECRET]}),
    ("a method that is a number", {"jsonrpc": "2.0", "id": 1, "method": 7, "params": {"x": SECRET}}),
    ("nothing", {}),
    ("a number", 7),
    ("deep nesting", b"[" * 100_000),
]


@pytest.mark.requirement("GW-6")
@pytest.mark.parametrize("version", [MODERN, "2025-11-25", ""])
@pytest.mark.parametrize(("case", "body"), BAD_BODIES, ids=[case for case, _ in BAD_BODIES])
async def test_bad_bodies_get_a_json_rpc_error_that_quotes_nothing(case: str, body: Any, version: str) -> None:
    async with stage() as s:
        headers = {"mcp-protocol-version": version} if version else {}
        answer = await s.post(body, **headers)
    assert answer.status_code == 400
    assert answer.json()["jsonrpc"] == "2.0"
    assert answer.json()["error"]["code"] in (-32700, -32600)
    assert SECRET not in answer.text


@pytest.mark.requirement("GW-6")
@pytest.mark.parametrize(
    ("status", "headers"),
    [(406, {"accept": "text/html"}), (415, {"content-type": "text/plain"}), (413, {"content-length": "99999999"})],
)
async def test_http_level_refusals_carry_a_json_rpc_error_too(status: int, headers: dict[str, str]) -> None:
    async with stage() as s:
        answer = await s.legacy("tools/list", **headers)
    assert answer.status_code == status
    assert answer.json()["jsonrpc"] == "2.0"
    assert answer.json()["error"]["message"]


async def test_a_body_beyond_the_limit_is_refused_whatever_its_headers_say() -> None:
    async with stage(max_body_bytes=1000) as s:

        async def chunks():
            for _ in range(5):
                yield b" " * 400

        headers = {"content-type": "application/json", "authorization": f"Bearer {READER}"}
        answer = await s.client.post("/mcp", content=chunks(), headers=headers)
    assert answer.status_code == 413
    assert "error" in answer.json()


async def test_invalid_parameters_of_a_method_are_refused_without_quoting_them() -> None:
    async with stage() as s:
        answers = [
            await s.legacy("tools/call", {"name": {"secret": SECRET}}),
            await s.legacy("resources/read", {"uri": 5, "note": SECRET}),
            await s.modern("tools/call", {"arguments": {"note": SECRET}}),
            await s.legacy("tools/list", {"cursor": SECRET}),
        ]
    for answer in answers:
        assert '"error"' in answer.text
        assert SECRET not in answer.text


@pytest.mark.requirement("GW-1")
async def test_without_a_version_header_the_session_or_the_oldest_default_decides() -> None:
    async with stage() as s:
        session = await s.initialize()
        for headers in ({"mcp-session-id": session}, {}):
            answer = await s.post({"jsonrpc": "2.0", "id": 3, "method": "tools/list"}, **headers)
            assert result_of(answer)["tools"]
            assert "resultType" not in result_of(answer)


@pytest.mark.requirement("GW-1")
async def test_unknown_modern_versions_are_told_what_is_supported() -> None:
    async with stage() as s:
        meta = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2031-01-01"}}
        answer = await s.modern("tools/list", meta, mcp_protocol_version="2031-01-01")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == -32022
    assert answer.json()["error"]["data"]["supported"] == [MODERN]


async def test_the_caller_that_reaches_the_door_names_agent_and_address() -> None:
    async with stage() as s:
        await s.modern("tools/call", {"name": "read", "arguments": {}, "_meta": modern_meta()})
        caller = s.door.calls[0][2]
    assert caller.bearer == READER
    assert (caller.agent.id, caller.agent.source) == ("test-client-agent-v2.1", "meta")
    assert caller.ip == "192.0.2.7"
    assert not caller.anonymous_listener


@pytest.mark.parametrize(
    "origin", ["http://[", "null", "https://127.0.0.1.evil.test", "https://evil.test:80", "//x", "::"]
)
async def test_odd_origins_are_refused_in_order_even_on_loopback(origin: str) -> None:
    async with stage(public_url="http://localhost:8000") as s:
        headers = {"origin": origin, "host": "127.0.0.1:8000"}
        near = await s.client.post("/mcp", headers=headers | {"origin": "http://localhost:6274"})
        answer = await s.client.post("/mcp", headers=headers)
    assert (near.status_code, answer.status_code) == (401, 403)


async def test_replies_and_cancels_count_against_the_rate_limit() -> None:
    async with stage() as s:
        s.limiter.wait = 5
        reply = {"jsonrpc": "2.0", "id": "gateway-1.aa.1", "result": {}}
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
        assert [(await s.post(message)).status_code for message in (reply, cancel)] == [429, 429]
        assert (await s.post({"jsonrpc": "2.0", "method": "notifications/initialized"})).status_code == 202


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_streams_tell_proxies_not_to_buffer(era: str) -> None:
    async with stage() as s:
        params = {"name": "slow", "arguments": {}, "_meta": {"progressToken": 1}}
        answer = await (s.modern if era == "modern" else s.legacy)("tools/call", params)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
