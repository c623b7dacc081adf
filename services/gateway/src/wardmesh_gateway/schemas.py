"""The input schemas of the tools, written for a model to read and strict enough to refuse what it makes up."""

from __future__ import annotations

from typing import Any

from wardmesh_gateway.rules import OPERATIONS

Schema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_LIMIT = 50

PLATFORM: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 128,
    "description": "Platform to ask, by id as list_platforms gives it, for example 'smarthealthit-sandbox-patient'. "
    "Aliases, payer ids and payer names are understood as well.",
}
RESOURCE_TYPE: Schema = {
    "type": "string",
    "pattern": "^[A-Z][A-Za-z]+$",
    "description": "FHIR R4 resource type, for example 'Patient', 'Observation', 'MedicationRequest'.",
}
RESOURCE_ID: Schema = {
    "type": "string",
    "pattern": "^[A-Za-z0-9\\-.]{1,64}$",
    "description": "Logical id of the resource, without its type, for example '123' of 'Patient/123'.",
}
OPERATION: Schema = {
    "type": "string",
    "enum": sorted(OPERATIONS),
    "description": "FHIR operation with its leading '$', for example '$everything' on a Patient.",
}
_SCALAR: Schema = {"type": ["string", "number", "boolean"]}
PARAMS: Schema = {
    "type": "object",
    "description": "FHIR search parameters by name, modifiers included, for example "
    '{"category": "laboratory", "date": ["ge2024-01-01", "le2024-12-31"]}. '
    "A list repeats the parameter, and all of them must match; a comma inside one value means 'or'.",
    "additionalProperties": {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR, "maxItems": 64}]},
    "maxProperties": 64,
}
RESOURCE: Schema = {
    "type": "object",
    "description": "The whole FHIR resource as JSON; resourceType must equal resource_type.",
    "required": ["resourceType"],
    "properties": {"resourceType": {"type": "string"}},
}
VIEW: Schema = {
    "type": "string",
    "enum": ["model", "full"],
    "description": "'model' gives an answer of bounded size that says what it left out, 'full' the platform's own.",
}
LIMIT: Schema = {
    "type": "integer",
    "minimum": 1,
    "maximum": MAX_LIMIT,
    "default": 10,
    "description": "Entries per page. More are fetched with get_next_page and the answer's next link.",
}
HANDLE: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": 1024,
    "description": "Only for callers without any other identity: the auth_handle that start_auth gave.",
}
NAMES: Schema = {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 128}, "maxItems": 32}


def tool_input(required: tuple[str, ...], **properties: Schema) -> Schema:
    """An object of exactly these properties, and the handle that stands for a caller on every tool (FG-26)."""
    return {
        "$schema": DIALECT,
        "type": "object",
        "properties": {**properties, "auth_handle": HANDLE},
        "required": list(required),
        "additionalProperties": False,
    }


def described(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description}


RESULT: Schema = {"type": "object"}
DELETED: Schema = {
    "type": "object",
    "properties": {"success": {"type": "boolean"}, "message": {"type": "string"}},
}
COUNT: Schema = {
    "type": "object",
    "properties": {"resource_type": {"type": "string"}, "total": {"type": "integer"}},
}
PLATFORM_LIST: Schema = {
    "type": "object",
    "properties": {
        "platforms": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "id": {"type": "string"},
                    "name": {"type": "string"},
                    "has_fhir": {"type": "boolean"},
                    "has_oauth": {"type": "boolean"},
                },
                "required": ["id", "name", "has_fhir", "has_oauth"],
            },
        },
        "total": {"type": "integer"},
    },
}
