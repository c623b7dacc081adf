"""CapabilityStatements made readable: a summary of all types, or the details of one (FG-4)."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from wardmesh_common.errors import BadUpstream

SHOWN_PARAMETERS = 10
NOTE = "Summary. Ask for one resource_type to see its search parameters and operations."


class _Named(Struct):
    name: str = ""


class _Interaction(Struct):
    code: str = ""


class _Resource(Struct):
    type: str = ""
    interaction: list[_Interaction] = []
    searchParam: list[_Named] = []  # noqa: N815 (FHIR's name)


class _Rest(Struct):
    resource: list[_Resource] = []


class _Software(Struct, frozen=True):
    name: str = ""
    version: str = ""


class _Statement(Struct):
    resourceType: str = ""  # noqa: N815
    fhirVersion: str = ""  # noqa: N815
    status: str = ""
    publisher: str = ""
    software: _Software = _Software()
    rest: list[_Rest] = []


class _RawResource(Struct):
    type: str = ""
    interaction: Raw = Raw(b"[]")
    searchParam: Raw = Raw(b"[]")  # noqa: N815
    operation: Raw = Raw(b"[]")


class _RawRest(Struct):
    resource: list[_RawResource] = []


class _RawStatement(Struct):
    resourceType: str = ""  # noqa: N815
    rest: list[_RawRest] = []


_statements = msgspec.json.Decoder(_Statement)
_raw_statements = msgspec.json.Decoder(_RawStatement)


def summary(body: bytes) -> bytes:
    """The statement in one screen. Raises BadUpstream when it is none."""
    statement: _Statement = _decode(_statements, body)
    resources = [
        {
            "type": resource.type,
            "interactions": [interaction.code for interaction in resource.interaction],
            "searchParams": [parameter.name for parameter in resource.searchParam[:SHOWN_PARAMETERS]],
            "searchParamCount": len(resource.searchParam),
        }
        for rest in statement.rest
        for resource in rest.resource
    ]
    return msgspec.json.encode(
        {
            "resourceType": "CapabilityStatement",
            "fhirVersion": statement.fhirVersion,
            "status": statement.status,
            "publisher": statement.publisher,
            "software": f"{statement.software.name} {statement.software.version}".strip(),
            "resourceCount": len(resources),
            "resources": resources,
            "note": NOTE,
        }
    )


def details(body: bytes, resource_type: str) -> bytes:
    """One type as the platform describes it, or a warning that it does not have it."""
    statement: _RawStatement = _decode(_raw_statements, body)
    for rest in statement.rest:
        for resource in rest.resource:
            if resource.type == resource_type:
                return msgspec.json.encode(
                    {
                        "resourceType": "CapabilityStatement",
                        "resource": resource_type,
                        "searchParam": resource.searchParam,
                        "operation": resource.operation,
                        "interaction": resource.interaction,
                    }
                )
    text = f"The server does not support the resource type {resource_type}."
    issue = {"severity": "warning", "code": "not-found", "diagnostics": text}
    return msgspec.json.encode({"resourceType": "OperationOutcome", "issue": [issue]})


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        statement = decoder.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        statement = None
    if statement is None or statement.resourceType != "CapabilityStatement":
        raise BadUpstream("The platform did not answer with a CapabilityStatement.")
    return statement
