"""The coverage routes as the OpenAPI document describes them (FG-10)."""

from __future__ import annotations

from typing import Any

from wardmesh_gateway.tool_spec import ToolSpec
from wardmesh_gateway.tools_coverage import COVERAGE_TOOLS

Json = dict[str, Any]

_PROBLEM = {"application/json": {"schema": {"$ref": "#/components/schemas/Detail"}}}
_PLATFORM: Json = {
    "name": "platform",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": r"^[a-z][a-z0-9\-]+$"},
}
_BY_NAME = {tool.name: tool for tool in COVERAGE_TOOLS}


def coverage_paths(reasons: dict[str, str]) -> Json:
    """`reasons` says what each status means. The routes take what the tools of the same content take."""
    refusals = {status: {"description": text, "content": _PROBLEM} for status, text in reasons.items()}

    def route(name: str, tool: ToolSpec) -> Json:
        good = {"200": {"description": "Done.", "content": {"application/json": {"schema": tool.output}}}}
        return {"operationId": name, "summary": tool.title, "tags": ["coverage"], "responses": {**refusals, **good}}

    rules = _BY_NAME["get_policy_rules"]
    code = {"name": "procedure_code", "in": "path", "required": True, "schema": {"type": "string"}}
    system = {"name": "code_system", "in": "query", "required": False, "schema": _members(rules)["code_system"]}
    return {
        "/api/coverage/{platform}/requirements": {
            "parameters": [_PLATFORM],
            "post": _posted(route("coverageRequirements", _BY_NAME["check_prior_auth"]), _BY_NAME["check_prior_auth"]),
        },
        "/api/coverage/{platform}/questionnaire-package": {
            "parameters": [_PLATFORM],
            "post": _posted(
                route("questionnairePackage", _BY_NAME["get_questionnaire_package"]),
                _BY_NAME["get_questionnaire_package"],
            ),
        },
        "/api/coverage/{platform}/rules/{procedure_code}": {
            "parameters": [_PLATFORM, code],
            "get": route("coverageRules", rules) | {"parameters": [system]},
        },
    }


def _members(tool: ToolSpec) -> Json:
    return {
        name: schema for name, schema in tool.input["properties"].items() if name not in ("platform_id", "auth_handle")
    }


def _posted(operation: Json, tool: ToolSpec) -> Json:
    members = _members(tool)
    required = [name for name in tool.input["required"] if name in members]
    schema = {"type": "object", "properties": members, "required": required, "additionalProperties": False}
    return operation | {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
