"""The tools: one registry, strict arguments, the same answers through REST and MCP (FG-21, FG-24, FG-26)."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from gateway.rest_stage import PATIENT, READER, WRITER, Stage, ok, outcome_body, refused
from wardmesh_common.contracts import PROCEDURE_KINDS, Caller
from wardmesh_common.errors import Unavailable
from wardmesh_common.vocabulary import Face, Interaction
from wardmesh_gateway.tool_calls import BUILD
from wardmesh_gateway.tool_mcp import McpDoor
from wardmesh_gateway.tools import TOOLS

pytestmark = pytest.mark.anyio
TARGET = {"platform_id": "store", "resource_type": "Patient", "resource_id": "p1"}
PERSON = {"resourceType": "Patient", "name": [{"family": "Doe"}]}


async def tool(stage: Stage, name: str, arguments: Any, headers: dict[str, str] | None = None) -> Any:
    content = arguments if isinstance(arguments, bytes) else json.dumps(arguments).encode()
    given = {**(headers or WRITER), "content-type": "application/json"}
    return await stage.send("POST", f"/v1/tools/{name}", headers=given, content=content)


def test_every_tool_has_a_valid_strict_schema_and_a_way_to_a_call() -> None:
    own = {tool.name for tool in TOOLS if tool.performer in PROCEDURE_KINDS}
    families = {tool.name for tool in TOOLS if tool.family}  # tools with another system's words
    assert {tool.name for tool in TOOLS} == BUILD.keys() | {"list_platforms", "find_platform"} | own | families
    for spec in TOOLS:
        jsonschema_rs.meta.validate(spec.input)
        # The search parameters of one kind are an open object there (SM-5).
        opened = spec.family == "smedrec" and spec.name.endswith("Search") and spec.name != "fhirResourceSearch"
        assert (spec.input["additionalProperties"] is False) != opened
        assert all("description" in schema for schema in spec.input["properties"].values())


async def test_list_platforms_says_what_can_be_asked() -> None:
    stage = Stage()
    answer = (await tool(stage, "list_platforms", {})).json()
    assert answer["total"] == len(answer["platforms"]) == 7
    rows = {row["id"]: row for row in answer["platforms"]}
    assert rows["store"] == {"id": "store", "name": "Wardmesh embedded store", "has_fhir": True, "has_oauth": False}
    assert not rows["bare"]["has_fhir"]
    assert stage.bus.calls == []


async def test_search_repeats_list_values_and_adds_its_extras() -> None:
    stage = Stage()
    params = {"date": ["ge2020", "le2021"], "code": "http://loinc.org|1", "active": True, "value": 5}
    arguments = {
        "platform_id": "store", "resource_type": "Observation", "params": params, "limit": 20,
        "elements": ["code", "value"], "include": ["Observation:subject", "Observation:encounter"],
        "revinclude": ["Provenance:target"], "sort": ["-date", "code"],
    }  # fmt: skip
    await tool(stage, "search", arguments)
    assert stage.bus.call.query == (
        "date=ge2020&date=le2021&code=http://loinc.org%7C1&active=true&value=5&_count=20&_elements=code,value"
        "&_include=Observation:subject&_include=Observation:encounter&_revinclude=Provenance:target&_sort=-date,code"
    )
    assert (stage.bus.call.face, stage.bus.call.view.model) == (Face.REST, False)


async def test_an_answer_for_a_model_is_bounded_and_one_for_an_application_is_whole() -> None:
    stage = Stage()
    await tool(stage, "read", {**TARGET, "view": "model"})
    await tool(stage, "read", TARGET)
    assert [(call.view.model, call.view.max_bytes) for call in stage.bus.calls] == [(True, 60_000), (False, 0)]


@pytest.mark.parametrize(
    ("name", "arguments", "interaction", "operation"),
    [
        ("read", TARGET, Interaction.READ, ""),
        ("read", {**TARGET, "operation": "$everything"}, Interaction.OPERATION, "$everything"),
        ("execute_operation", {**TARGET, "operation": "$summary"}, Interaction.OPERATION, "$summary"),
        ("create", {"platform_id": "store", "resource_type": "Patient", "resource": PERSON}, Interaction.CREATE, ""),
        ("update", {**TARGET, "resource": PERSON}, Interaction.UPDATE, ""),
        ("patch", {**TARGET, "fields": {"active": False, "name": None}}, Interaction.PATCH, ""),
    ],
)
async def test_a_tool_becomes_its_interaction_and_relays_the_answer(
    name: str, arguments: dict[str, Any], interaction: Interaction, operation: str
) -> None:
    stage = Stage()
    answer = await tool(stage, name, arguments)
    assert (answer.status_code, answer.content) == (200, PATIENT)
    assert (stage.bus.call.interaction, stage.bus.call.operation) == (interaction, operation)
    assert stage.bus.call.resource.type == "Patient"


async def test_what_a_tool_writes_keeps_its_digits_and_gets_the_id_of_the_arguments() -> None:
    stage = Stage()
    resource = b'{"resourceType":"Patient","x":1.00,"y":100000000000000000000.5}'
    arguments = b'{"platform_id":"store","resource_type":"Patient","resource_id":"p1","resource":' + resource + b"}"
    await tool(stage, "update", arguments)
    assert stage.bus.bodies == [resource[:-1] + b',"id":"p1"}']
    await tool(stage, "patch", {**TARGET, "fields": {"active": False, "name": None}})
    steps = [{"op": "add", "path": "/active", "value": False}, {"op": "remove", "path": "/name"}]
    assert json.loads(stage.bus.bodies[1] or b"") == steps


async def test_delete_count_and_capabilities_answer_in_their_own_form() -> None:
    stage = Stage()
    stage.bus.reply = ok(b"", 204)
    assert (await tool(stage, "delete", TARGET)).json() == {"success": True, "message": "Deleted Patient/p1"}
    stage.bus.reply = ok(b'{"resourceType":"Bundle","total":42}')
    count = {"platform_id": "store", "resource_type": "Patient", "params": {"name": "a", "_count": 3}}
    assert (await tool(stage, "count", count)).json() == {"resource_type": "Patient", "total": 42}
    assert stage.bus.calls[-1].query == "name=a&_summary=count"
    statement = b'{"resourceType":"CapabilityStatement","fhirVersion":"4.0.1"}'
    stage.bus.reply = ok(statement)
    assert (await tool(stage, "get_capabilities", {"platform_id": "store", "full": True})).content == statement
    short = (await tool(stage, "get_capabilities", {"platform_id": "store"})).json()
    assert (short["fhirVersion"], short["resourceCount"]) == ("4.0.1", 0)


@pytest.mark.parametrize(("asked", "sent"), [({}, "10"), ({"_count": 30}, "30"), ({"_count": "5000"}, "50")])
async def test_everything_about_a_patient_comes_in_pages(asked: dict[str, Any], sent: str) -> None:
    stage = Stage()
    await tool(stage, "execute_operation", {**TARGET, "operation": "$everything", "params": asked})
    assert stage.bus.call.query == f"_count={sent}"


@pytest.mark.parametrize(
    ("url", "interaction", "kind"),
    [
        ("http://gateway.test/api/fhir/store/Patient?_cursor=abc", Interaction.SEARCH, "Patient"),
        ("http://gateway.test/fhir/store/Patient/p1/$everything?_cursor=abc", Interaction.OPERATION, "Patient"),
        ("https://evil.test/fhir/x/Patient?_cursor=abc", Interaction.SEARCH, "Patient"),
    ],
)
async def test_of_a_page_url_only_the_cursor_and_its_question_are_used(
    url: str, interaction: Interaction, kind: str
) -> None:
    stage = Stage()
    await tool(stage, "get_next_page", {"platform_id": "store", "url": url})
    call = stage.bus.call
    assert (call.interaction, call.resource.type, call.query) == (interaction, kind, "_cursor=abc")
    assert call.platform == "store"


@pytest.mark.parametrize("url", ["http://10.0.0.1/secret", "http://gateway.test/fhir/store/Patient?page=2", "http://["])
async def test_a_url_without_our_cursor_is_refused(url: str) -> None:
    stage = Stage()
    answer = await tool(stage, "get_next_page", {"platform_id": "store", "url": url})
    assert (answer.status_code, answer.json()["error"]) == (400, "validation_error")
    assert stage.bus.calls == []


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("search", {"platform_id": "store", "resource_type": "patient"}, "Invalid resource type 'patient'. "),
        ("read", {**TARGET, "resource_id": "a/b"}, "Invalid resource_id: "),
        ("read", {**TARGET, "operation": "$export"}, "Invalid operation. "),
        ("search", {"resource_type": "Patient"}, "Invalid arguments: 'platform_id' is missing"),
        ("search", {**TARGET}, "Invalid arguments: an argument that this tool does not have"),
        ("search", {"platform_id": "store", "resource_type": "Patient", "limit": 51}, "Invalid limit: is too large"),
        ("search", {"platform_id": "store", "resource_type": "Patient", "params": {"a b": "1"}}, "Invalid search"),
        ("search", {"platform_id": "store", "resource_type": "Patient", "params": {"a": {"b": 1}}}, "Invalid params"),
        ("update", {**TARGET, "resource": {**PERSON, "id": "p2"}}, "Resource ID mismatch: "),
        ("create", {"platform_id": "store", "resource_type": "Claim", "resource": PERSON}, "Resource type mismatch: "),
        ("patch", {**TARGET, "fields": {"id": "p2"}}, "Invalid fields"),
        ("read", [], "Invalid body"),
        ("read", b"{", "Invalid body"),
    ],
)
async def test_wrong_arguments_are_named_and_never_reach_the_mesh(name: str, arguments: Any, text: str) -> None:
    stage = Stage()
    answer = await tool(stage, name, arguments)
    assert answer.status_code == 400
    assert answer.json()["error"] == "validation_error"
    assert answer.json()["message"].startswith(text)
    assert stage.bus.calls == []


@pytest.mark.requirement("FG-24")
@pytest.mark.parametrize(
    ("arguments", "reply", "status", "code", "message"),
    [
        ({**TARGET, "platform_id": "nowhere"}, None, 404, "platform_not_found", "Platform 'nowhere' not found"),
        ({**TARGET, "platform_id": "Bad!"}, None, 400, "validation_error", "Invalid platform_id"),
        ({**TARGET, "platform_id": "47198"}, None, 400, "validation_error", "Several platforms"),
        (
            {**TARGET, "platform_id": "bare"},
            None,
            503,
            "platform_not_configured",
            "Platform 'bare' has no FHIR endpoint",
        ),
        (TARGET, refused(404, "not_found", "x"), 404, "not_found", "Resource not found"),
        (TARGET, refused(422, "operation_outcome", "", outcome_body("bad")), 422, "operation_outcome", "bad"),
        (TARGET, refused(403, "forbidden", "no"), 403, "forbidden", "no"),
        (TARGET, refused(403, "insufficient_scope", "more"), 403, "insufficient_scope", "Insufficient scope: more"),
        (TARGET, refused(504, "timeout", "late"), 504, "timeout", "late"),
        (TARGET, Unavailable("away"), 503, "upstream_unavailable", "away"),
        (TARGET, refused(500, "internal_error", "x"), 500, "internal_error", "Operation failed: read"),
    ],
)
async def test_failures_have_the_codes_and_texts_of_the_tools(
    arguments: dict[str, Any], reply: Any, status: int, code: str, message: str
) -> None:
    stage = Stage()
    if reply is not None:
        stage.bus.reply = reply
    answer = await tool(stage, "read", arguments)
    assert answer.status_code == status
    assert answer.json()["error"] == code
    assert answer.json()["message"].startswith(message)


async def test_an_unknown_tool_is_refused_before_a_session_is_asked_for() -> None:
    stage = Stage()
    answer = await stage.send("POST", "/v1/tools/nothing", headers={"x": "y"}, content=b"{}")
    assert (answer.status_code, answer.json()["error"]) == (404, "unknown_tool")
    assert (await stage.get("/v1/tools/read")).status_code == 405


class PolicyAnswers:
    def __init__(self, allowed: tuple[str, ...] | None) -> None:
        self.allowed = allowed
        self.asked: list[Any] = []

    async def ask(self, subject: str, question: Any, answer_type: Any, **_: Any) -> Any:
        self.asked.append(question)
        if self.allowed is None:
            raise Unavailable("nobody there")
        return answer_type(allowed=self.allowed)


def mcp(stage: Stage, allowed: tuple[str, ...] | None = ("read",)) -> McpDoor:
    return McpDoor(stage.parts.calls, stage.parts.callers, PolicyAnswers(allowed))


async def test_mcp_calls_the_same_way_and_gets_the_exact_text() -> None:
    stage = Stage()
    seen: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append(done)

    caller = Caller(bearer="doctor:fhir.read", ip="203.0.113.9")
    result = await mcp(stage).call_tool("read", TARGET, caller, progress=progress)
    assert (result.is_error, result.text) == (False, PATIENT.decode())
    assert result.structured["id"] == "p1"
    assert (stage.bus.call.face, stage.bus.call.view.max_bytes) == (Face.MCP, 60_000)
    assert seen == [0.0, 1.0]


async def test_mcp_refusals_are_results() -> None:
    stage = Stage()
    door = mcp(stage)
    nobody = await door.call_tool("read", TARGET, Caller(ip="203.0.113.9"))
    assert (nobody.is_error, nobody.structured["error"]) == (True, "session_error")
    stage.bus.reply = ok(b"no json")
    broken = await door.call_tool("read", TARGET, Caller(bearer="doctor:fhir.read"))
    assert broken.structured == {"error": "internal_error", "message": "Operation failed: read"}


async def test_the_tool_list_is_what_policy_allows_and_without_policy_only_the_catalogue() -> None:
    stage = Stage()
    caller = Caller(bearer="doctor:fhir.read")
    own = {tool.name for tool in TOOLS if tool.interaction is None}
    assert {"find_platform", "list_platforms"} < own
    assert await mcp(stage).allowed_tools(caller) == own | {"read"}
    assert await mcp(stage, None).allowed_tools(caller) == own


def test_hints_and_scopes_follow_from_the_interaction() -> None:
    shown = {shown.name: shown for shown in mcp(Stage()).tools() if shown.profiles == ("gateway",)}
    changing = {"create", "update", "patch", "delete", "start_auth", "complete_auth", "revoke_auth"}
    assert {name for name, hint in shown.items() if not hint.read_only} == changing
    assert shown["delete"].destructive
    assert shown["delete"].idempotent
    assert not shown["create"].idempotent
    assert shown["create"].scopes == ("fhir.read", "fhir.write")
    assert shown["read"].scopes == ("fhir.read",)


async def test_a_reader_may_not_write_through_tools() -> None:
    stage = Stage()
    answer = await tool(stage, "delete", TARGET, READER)
    assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
    assert stage.bus.calls == []
