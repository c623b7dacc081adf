"""Resources and prompts of FG-25, over both wire eras."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from gateway.mcp_stage import FakeDoor, messages_of, result_of, stage
from wardmesh_gateway.mcp_door import McpTool, ToolResult
from wardmesh_gateway.mcp_prompts import PROMPTS
from wardmesh_gateway.tool_mcp import TOOLS as REGISTRY

pytestmark = pytest.mark.anyio

PAIRS = [("check_prior_auth", "prior_auth_workflow"), ("patient_summary", "patient_summary_workflow")]
ARGUMENTS = {"patient_id": "p-1", "procedure_code": "70551", "platform_id": "store"}


@pytest.mark.requirement("FG-25")
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_the_platforms_are_resources(era: str) -> None:
    listed = ToolResult(structured={"platforms": [], "total": 0})
    async with stage(door=FakeDoor(result=listed)) as s:
        call = s.modern if era == "modern" else s.legacy
        resources = result_of(await call("resources/list"))["resources"]
        templates = result_of(await call("resources/templates/list"))["resourceTemplates"]
        everything = result_of(await call("resources/read", {"uri": "fhir://platforms"}))["contents"][0]
        one = result_of(await call("resources/read", {"uri": "fhir://platform/store"}))["contents"][0]
        unknown = messages_of(await call("resources/read", {"uri": "fhir://platform/nowhere"}))[-1]["error"]
    assert [entry["uri"] for entry in resources] == ["fhir://platforms"]
    assert [entry["uriTemplate"] for entry in templates] == ["fhir://platform/{platform_id}"]
    assert everything["mimeType"] == one["mimeType"] == "application/json"
    assert msgspec.json.decode(everything["text"]) == {"platforms": [], "total": 0}
    assert msgspec.json.decode(one["text"]) == {
        "id": "store",
        "name": "Store",
        "fhir_base_url": None,
        "has_oauth": False,
        "verification_status": "template",
        "capabilities": {"patient_access": True, "crd": True, "dtr": False},
    }
    assert unknown["message"] == "Platform 'nowhere' not found"
    assert unknown["code"] == (-32602 if era == "modern" else -32002)


async def test_a_uri_that_is_no_platform_is_not_repeated_in_the_message() -> None:
    async with stage() as s:
        answer = await s.modern("resources/read", {"uri": "fhir://platform/Maria%20Canary"})
    assert answer.json()["error"]["message"] == "Resource not found"


@pytest.mark.requirement("FG-25")
@pytest.mark.parametrize("names", PAIRS)
async def test_prompts_answer_to_both_names_with_the_same_content(names: tuple[str, str]) -> None:
    async with stage() as s:
        shown = {entry["name"]: entry for entry in result_of(await s.modern("prompts/list"))["prompts"]}
        asked = {argument["name"]: ARGUMENTS[argument["name"]] for argument in shown[names[0]]["arguments"]}
        texts = [
            result_of(await s.modern("prompts/get", {"name": name, "arguments": asked}))["messages"][0]["content"]
            for name in names
        ]
        missing = await s.modern("prompts/get", {"name": names[0], "arguments": {}})
    assert set(shown) == {name for prompt in PROMPTS for name in prompt.names}
    assert texts[0] == texts[1]
    assert "p-1" in texts[0]["text"]
    assert missing.json()["error"]["code"] == -32602


def registered() -> tuple[McpTool, ...]:
    """The product's own registry, as far as it is built."""
    return tuple(
        McpTool(name=spec.name, title=spec.name, description=spec.summary, input_schema=spec.input) for spec in REGISTRY
    )


@pytest.mark.requirement("FG-25")
async def test_prompt_texts_name_only_tools_and_parameters_that_exist() -> None:
    door = FakeDoor(registry=registered())
    known = {tool.name: set(tool.input_schema.get("properties", {})) for tool in door.registry}
    named: list[tuple[str, set[str]]] = []
    async with stage(door=door) as s:
        for prompt in PROMPTS:
            asked: dict[str, Any] = {name: ARGUMENTS[name] for name in prompt.arguments}
            result = result_of(await s.modern("prompts/get", {"name": prompt.names[0], "arguments": asked}))
            for name, inside in re.findall(r"`(\w+)\(([^)]*)\)`", result["messages"][0]["content"]["text"]):
                named.append((name, {part.strip() for part in inside.split(",") if part.strip()}))
    assert len(named) >= 6
    for name, parameters in named:
        assert parameters <= known[name]
