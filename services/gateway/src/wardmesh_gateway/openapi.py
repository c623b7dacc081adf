"""The OpenAPI 3.1 document: FastAPI describes its own routes, this adds the raw ones and one path per tool (FG-29)."""

from __future__ import annotations

from typing import Any

from wardmesh_gateway.openapi_audit import audit_paths
from wardmesh_gateway.openapi_coverage import coverage_paths
from wardmesh_gateway.openapi_sign_in import sign_in_paths
from wardmesh_gateway.rules import OPERATIONS
from wardmesh_gateway.tool_spec import ToolSpec
from wardmesh_gateway.tools import TOOLS

Json = dict[str, Any]

_FHIR = {"application/json": {"schema": {"type": "object", "description": "A FHIR R4 resource."}}}
_FHIR_FACE = {"application/fhir+json": {"schema": {"type": "object", "description": "A FHIR R4 resource."}}}
_FORM = {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}}
_PATCHES = {
    "application/json-patch+json": {"schema": {"type": "array", "items": {"type": "object"}}},
    **_FHIR_FACE,
}
_PROBLEM = {"application/json": {"schema": {"$ref": "#/components/schemas/Detail"}}}
_TOOL_PROBLEM = {"application/json": {"schema": {"$ref": "#/components/schemas/ToolError"}}}
_TYPED_PROBLEM = {"application/json": {"schema": {"$ref": "#/components/schemas/TypedError"}}}
_OUTCOME = {"application/fhir+json": {"schema": {"$ref": "#/components/schemas/OperationOutcome"}}}

_REASONS = {
    "400": "The request is not valid.",
    "401": "No credential, or one that does not hold.",
    "403": "Refused by policy, or the token's scope is too small.",
    "404": "No such platform or resource.",
    "405": "This method is not offered here.",
    "406": "Only JSON is offered.",
    "409": "The platform sees a conflict.",
    "410": "The resource was deleted.",
    "412": "A condition does not hold.",
    "413": "The body is larger than the limit.",
    "415": "The body's media type is not understood.",
    "422": "The platform answered with an OperationOutcome.",
    "429": "Too many requests.",
    "500": "A fault of ours.",
    "502": "The platform gave no usable answer.",
    "503": "The platform or a service is not available.",
    "504": "The platform did not answer in time.",
}

SCHEMAS: Json = {
    "Detail": {
        "type": "object",
        "properties": {"detail": {"type": "string"}},
        "required": ["detail"],
    },
    "ToolError": {
        "type": "object",
        "properties": {"error": {"type": "string"}, "message": {"type": "string"}},
        "required": ["error", "message"],
    },
    "TypedError": {
        "type": "object",
        "properties": {
            "error": {"const": True},
            "type": {"enum": ["validation_error", "not_found", "auth_error", "service_error", "server_error"]},
            "message": {"type": "string"},
        },
        "required": ["error", "type", "message"],
    },
    "OperationOutcome": {
        "type": "object",
        "properties": {
            "resourceType": {"const": "OperationOutcome"},
            "issue": {"type": "array", "items": {"type": "object"}, "minItems": 1},
        },
        "required": ["resourceType", "issue"],
    },
}

_PARAMETERS: Json = {
    "platform": {"type": "string", "pattern": r"^[a-z][a-z0-9\-]+$"},
    "resource_type": {"type": "string", "pattern": "^[A-Z][A-Za-z]+$"},
    "resource_id": {"type": "string", "pattern": r"^[A-Za-z0-9\-.]{1,64}$"},
    "version_id": {"type": "string", "pattern": r"^[A-Za-z0-9\-.]{1,64}$"},
    "operation": {"type": "string", "enum": sorted(OPERATIONS)},
}


def document(base: Json, public_url: str) -> Json:
    """`base` is what FastAPI says of the catalogue; the result describes every REST and FHIR route and every tool."""
    paths: Json = dict(base["paths"])
    for item in paths.values():
        for operation in item.values():
            operation["security"] = []
            for status in ("413", "500", "503"):
                operation["responses"].setdefault(status, _answer(status, _PROBLEM))
            if "422" in operation["responses"]:
                operation["responses"]["422"] = {"description": "A parameter is not valid.", "content": _PROBLEM}
    paths["/api/platforms/{platform_id}"]["get"]["responses"] |= {
        status: _answer(status, _PROBLEM) for status in ("400", "404")
    }
    paths |= rest_paths()
    paths |= fhir_paths()
    paths |= coverage_paths(_REASONS)
    paths |= sign_in_paths(_REASONS)
    paths |= audit_paths(_REASONS)
    paths |= {f"/v1/tools/{tool.name}": {"post": _tool(tool)} for tool in TOOLS}
    components = dict(base.get("components", {}))
    kept = {
        k: v for k, v in components.get("schemas", {}).items() if k not in ("HTTPValidationError", "ValidationError")
    }
    components["schemas"] = kept | SCHEMAS
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "session": {"type": "apiKey", "in": "cookie", "name": "app_session"},
    }
    return {
        **base,
        "openapi": "3.1.0",
        "servers": [{"url": public_url}],
        "paths": paths,
        "components": components,
        # Open platforms are read without a credential (FG-39).
        "security": [{"bearer": []}, {"session": []}, {}],
    }


def rest_paths() -> Json:
    search = _operation("searchRest", "Search a type; every query parameter is a search parameter", _FHIR, _PROBLEM)
    read = _operation("readRest", "Read a resource", _FHIR, _PROBLEM)
    return {
        "/api/fhir/{platform}/metadata": _item(
            ("platform",),
            get=_operation("metadataRest", "What the platform supports", _FHIR, _PROBLEM)
            | {"parameters": [_query("resource_type", _PARAMETERS["resource_type"])]},
        ),
        "/api/fhir/{platform}/{resource_type}": _item(
            ("platform", "resource_type"),
            get=search,
            post=_body(_operation("createRest", "Store a new resource", _FHIR, _PROBLEM, "201"), _FHIR),
        ),
        "/api/fhir/{platform}/{resource_type}/{resource_id}": _item(
            ("platform", "resource_type", "resource_id"),
            get=read,
            put=_body(_operation("updateRest", "Replace a resource", _FHIR, _PROBLEM, "200", "201"), _FHIR),
            delete=_operation("deleteRest", "Delete a resource", _FHIR, _PROBLEM),
        ),
        "/api/fhir/{platform}/{resource_type}/{resource_id}/{operation}": _item(
            ("platform", "resource_type", "resource_id", "operation"),
            get=_operation("operationRest", "Run an operation that only reads", _FHIR, _PROBLEM),
        ),
    }


def fhir_paths() -> Json:
    base = "/fhir/{platform}"
    kind, instance = f"{base}/{{resource_type}}", f"{base}/{{resource_type}}/{{resource_id}}"

    def one(name: str, summary: str, *statuses: str) -> Json:
        return _operation(name, summary, _FHIR_FACE, _OUTCOME, *statuses)

    of_type, of_one = ("platform", "resource_type"), ("platform", "resource_type", "resource_id")
    return {
        base: _item(
            ("platform",),
            get=one("searchSystem", "Search all types"),
            post=_body(one("bundle", "Batch or transaction"), _FHIR_FACE),
        ),
        f"{base}/metadata": _item(("platform",), get=one("metadata", "CapabilityStatement of the platform")),
        f"{base}/_history": _item(("platform",), get=one("historySystem", "Versions of all resources")),
        kind: _item(
            of_type,
            get=one("search", "Search a type"),
            post=_body(one("create", "Store a new resource", "201"), _FHIR_FACE),
        ),
        f"{kind}/_search": _item(of_type, post=_body(one("searchForm", "Search with a form"), _FORM)),
        f"{kind}/_history": _item(of_type, get=one("historyType", "Versions of a type")),
        instance: _item(
            of_one,
            get=one("read", "Read a resource", "200", "304"),
            put=_body(one("update", "Replace a resource", "200", "201"), _FHIR_FACE),
            patch=_body(one("patch", "Change a resource"), _PATCHES),
            delete=one("delete", "Delete a resource", "200", "204"),
        ),
        f"{instance}/_history": _item(of_one, get=one("historyInstance", "Versions of a resource")),
        f"{instance}/_history/{{version_id}}": _item((*of_one, "version_id"), get=one("vread", "Read a version")),
        f"{instance}/{{operation}}": _item(
            (*of_one, "operation"),
            get=one("operationGet", "Run an operation that only reads"),
            post=_body(one("operationPost", "Run an operation"), _FHIR_FACE, required=False),
        ),
    }


def _tool(tool: ToolSpec) -> Json:
    accepted = {"application/json": {"schema": {k: v for k, v in tool.input.items() if k != "$schema"}}}
    answer = {"application/json": {"schema": tool.output}}
    refusal = _TYPED_PROBLEM if tool.typed_errors else _TOOL_PROBLEM
    operation = _operation(f"tool_{tool.name}", tool.title, answer, refusal)
    described = _body(operation, accepted, required=bool(tool.input["required"]))
    return described | {"description": tool.summary, "tags": ["tools"]}


def _operation(name: str, summary: str, good: Json, bad: Json, *statuses: str) -> Json:
    responses: Json = {status: {"description": "Done.", "content": good} for status in statuses or ("200",)}
    for empty in ("204", "304"):
        if empty in responses:
            responses[empty] = {"description": "Nothing to show."}
    responses |= {status: _answer(status, bad) for status in _REASONS}
    return {"operationId": name, "summary": summary, "responses": responses}


def _answer(status: str, content: Json) -> Json:
    return {"description": _REASONS[status], "content": content}


def _body(operation: Json, content: Json, *, required: bool = True) -> Json:
    return {**operation, "requestBody": {"required": required, "content": content}}


def _item(names: tuple[str, ...], **operations: Json) -> Json:
    path = [{"name": name, "in": "path", "required": True, "schema": _PARAMETERS[name]} for name in names]
    return {"parameters": path, **operations}


def _query(name: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema}
