"""A tool call from arguments to answer: check, build, submit, shape. MCP and `POST /v1/tools/{name}` share it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import msgspec
from msgspec import Struct

from wardmesh_common.errors import BadRequest, BadUpstream
from wardmesh_common.questions import DirectoryAnswer, DirectoryQuestion
from wardmesh_common.vocabulary import Face
from wardmesh_gateway import capability
from wardmesh_gateway.answers import Answered, success
from wardmesh_gateway.caller import Visit, with_handle
from wardmesh_gateway.calls import Door, Wanted
from wardmesh_gateway.catalogue import Platforms
from wardmesh_gateway.procedures import Procedures
from wardmesh_gateway.rules import check_id, check_operation, check_type
from wardmesh_gateway.sign_in import PERFORMER as SIGN_IN
from wardmesh_gateway.sign_in import SignIn
from wardmesh_gateway.tool_calls import BUILD
from wardmesh_gateway.tool_family import Family
from wardmesh_gateway.tool_spec import ToolSpec
from wardmesh_gateway.tools import BY_NAME, TOOLS

# Literal texts of FG-8 come before the schema's own words.
_literal = {"resource_type": check_type, "resource_id": check_id, "operation": check_operation}

_phrases = {
    "additionalProperties": "an argument that this tool does not have",
    "type": "has the wrong type",
    "enum": "is not one of the allowed values",
    "pattern": "has the wrong form",
    "propertyNames": "holds a name of the wrong form",
    "anyOf": "holds a value of the wrong type",
    "minimum": "is too small",
    "maximum": "is too large",
    "minLength": "is too short",
    "maxLength": "is too long",
    "minProperties": "is empty",
    "maxProperties": "holds too many members",
    "maxItems": "holds too many items",
}


class _Bundle(Struct):
    total: int | None = None


_bundles = msgspec.json.Decoder(_Bundle)


class ToolArguments:
    """The input schemas, compiled once."""

    def __init__(self) -> None:
        self._validators = {tool.name: jsonschema_rs.validator_for(tool.input) for tool in TOOLS}

    def check(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Raises BadRequest; its text names the argument and what is wrong, never the value (AR-8)."""
        for key, rule in _literal.items() if not BY_NAME[name].family else ():
            value = arguments.get(key)
            if isinstance(value, str):
                rule(value)
        validator = self._validators[name]
        if not validator.is_valid(arguments):
            raise BadRequest("; ".join(_said(error) for error in list(validator.iter_errors(arguments))[:5]))


def _said(error: jsonschema_rs.ValidationError) -> str:
    kind = error.kind
    if isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
        return f"Invalid arguments: '{kind.property}' is missing"
    phrase = _phrases.get(kind.name, "is not valid")
    # The first step of the path is an argument's name, ours; what follows may be the caller's words.
    place = str(error.instance_path[0]) if error.instance_path else "arguments"
    return f"Invalid {place}: {phrase}"


class ToolCalls:
    """Answers tool calls. Expected refusals are raised as WardmeshError with the Problem to show."""

    def __init__(
        self,
        door: Door,
        platforms: Platforms,
        procedures: Procedures,
        sign_in: SignIn,
        families: Mapping[str, Family],
    ) -> None:
        self._door = door
        self._families = families
        self._platforms = platforms
        self._procedures = procedures
        self._sign_in = sign_in

    async def call(
        self, name: str, arguments: Mapping[str, Any], visit: Visit, face: Face, *, view: str, traceparent: str = ""
    ) -> Answered:
        """The answer as JSON text, byte for byte what the platform said wherever it passes through.

        The arguments have passed `ToolArguments.check`.
        """
        if "auth_handle" in arguments:
            visit = with_handle(visit, arguments["auth_handle"])
        tool = BY_NAME[name]
        if tool.family:
            return await self._families[tool.family].call(tool, arguments, visit, face, traceparent)
        build = BUILD.get(name)
        if build is None:
            return await self._own(tool, arguments, visit, face, traceparent)
        wanted = build(arguments, view)
        # Texts about platforms are the tools' own, through whichever face they are called (FG-24).
        named = self._door.named(arguments["platform_id"], Face.MCP)
        facts = self._door.answering(named, Face.MCP)
        delivery = await self._door.submit(wanted, facts, visit, face, traceparent=traceparent)
        return Answered(
            body=shaped(wanted, arguments, await success(delivery)),
            call_id=delivery.reply.call_id,
            platform=facts.id,
            instead_of="" if facts is named else named.id,
        )

    async def _own(
        self, tool: ToolSpec, arguments: Mapping[str, Any], visit: Visit, face: Face, traceparent: str
    ) -> Answered:
        """What no platform answers: the catalogue and our own operations."""
        if tool.name == "find_platform":
            return Answered(body=await self.find_platform(arguments))
        if tool.interaction is None:
            return Answered(body=self.list_platforms())
        told = {name: value for name, value in arguments.items() if name != "auth_handle"}
        if "platform_id" in told:
            told["platform_id"] = self._platform_of(tool, told["platform_id"])
        if tool.name == "wait_for_auth":
            return await self._sign_in.wait_for_tool(told, visit, face, traceparent)
        answered = await self._procedures.run(
            tool.performer, tool.name, told, visit, face, scope=tool.scope, traceparent=traceparent
        )
        return for_tools(answered)

    def _platform_of(self, tool: ToolSpec, name: str) -> str:
        """The id of the platform that is meant; for a sign-in it must have one."""
        if tool.performer != SIGN_IN:
            return self._door.named(name, Face.MCP).id
        if tool.name == "get_auth_status":
            return self._door.signs_in(name, Face.MCP).id
        return self._sign_in.platform(name, Face.MCP).id

    async def find_platform(self, arguments: Mapping[str, Any]) -> bytes:
        question = DirectoryQuestion(
            text=arguments["query"], state=arguments.get("state", ""), limit=arguments.get("limit", 10)
        )
        return msgspec.json.encode(listed(await self._platforms.search(question)))

    def list_platforms(self) -> bytes:
        platforms = self._platforms.snapshot.platforms
        rows = [
            {
                "id": facts.id,
                "name": facts.name,
                "has_fhir": bool(facts.fhir_base_url or facts.served_by),
                "has_oauth": facts.has_oauth,
            }
            for facts in platforms
        ]
        return msgspec.json.encode({"platforms": rows, "total": len(rows)})


def listed(answer: DirectoryAnswer) -> dict[str, Any]:
    """Candidates as callers see them; what is not known of one is left out."""
    rows = [msgspec.to_builtins(candidate) for candidate in answer.candidates]
    for row in rows:
        row["platform_id"] = row.pop("platform")
        row.setdefault("verification_status", "unverified")
        row.pop("score", None)
    return {"candidates": rows, "total": answer.total}


def for_tools(answered: Answered) -> Answered:
    """A cookie's secret is for a browser; whatever else a procedure says, no tool caller ever gets one (X-17)."""
    if b'"session"' not in answered.body:
        return answered
    said = msgspec.json.decode(answered.body, type=dict[str, Any])
    kept = {name: value for name, value in said.items() if name not in ("session", "max_age")}
    return msgspec.structs.replace(answered, body=msgspec.json.encode(kept))


def shaped(wanted: Wanted, arguments: Mapping[str, Any], body: bytes) -> bytes:
    """The answer in the tool's own form, where that is not the platform's."""
    if wanted.tool == "delete":
        return msgspec.json.encode({"success": True, "message": f"Deleted {wanted.type}/{wanted.id}"})
    if wanted.tool == "count":
        return _counted(wanted.type, body)
    if wanted.tool == "get_capabilities" and not arguments.get("full"):
        kind = arguments.get("resource_type")
        return capability.details(body, kind) if kind else capability.summary(body)
    return body or b"{}"


def _counted(resource_type: str, body: bytes) -> bytes:
    try:
        total = _bundles.decode(body).total
    except (msgspec.DecodeError, msgspec.ValidationError):
        total = None
    if total is None:
        raise BadUpstream("The platform does not say how many resources match.")
    return msgspec.json.encode({"resource_type": resource_type, "total": total})
