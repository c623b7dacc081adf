"""Request bodies on their way in: one well-formed resource, of the type and id that the URL says (FG-7)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NoReturn, cast

import msgspec

from wardmesh_common.errors import BadRequest
from wardmesh_gateway.problem import UnsupportedMedia

FHIR_JSON = "application/fhir+json"
JSON_PATCH = "application/json-patch+json"
FORM = "application/x-www-form-urlencoded"

# `application/json+fhir` is DSTU2's name for it; PX-4 takes them as equal.
JSON_TYPES = frozenset({"", "application/json", "application/fhir+json", "application/json+fhir"})
PATCH_TYPES = frozenset({JSON_PATCH, *JSON_TYPES} - {""})

# Reading a larger body for duplicate keys would hold up everybody else: it goes to a thread.
THREAD_BYTES = 128 * 1024
_QUOTED = 64

_encoder = msgspec.json.Encoder(decimal_format="number")
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)


class _Duplicate(ValueError):
    pass


def media_type_of(header: str) -> str:
    return header.partition(";")[0].strip().lower()


def check_json(media_type: str) -> None:
    if media_type not in JSON_TYPES:
        raise UnsupportedMedia("The body must be JSON: application/fhir+json or application/json.")


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Duplicate
    return members


def _read_strictly(body: bytes) -> object:
    """A parser may keep the first or the last of two equal keys: policy and platform must not see different ones."""
    try:
        return json.loads(
            body, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=str, parse_float=str
        )
    except _Duplicate:
        raise BadRequest("Invalid body: a member is given twice in one object.") from None
    except (ValueError, RecursionError):
        raise BadRequest("Invalid body: it is not valid JSON.") from None


async def parse_strictly(body: bytes) -> dict[str, Any]:
    """The body as an object, for looking at: numbers are text in it. Raises BadRequest."""
    parsed = await _parse(body)
    if not isinstance(parsed, dict):
        raise BadRequest("Invalid body: a JSON object is expected.")
    return cast("dict[str, Any]", parsed)


class Peek(msgspec.Struct, frozen=True):
    """What the gateway must know of a resource; the performer reads it strictly before it goes anywhere."""

    resourceType: str | None = None  # noqa: N815 (FHIR's name)
    id: str | None = None


_peeks = msgspec.json.Decoder(Peek)


def peek(body: bytes) -> Peek:
    """Type and id of a resource, without building it. Raises BadRequest."""
    try:
        return _peeks.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        raise BadRequest("Invalid body: it is not a FHIR resource in JSON.") from None


async def check_patch(body: bytes) -> None:
    """A JSON Patch document is a list of objects. Raises BadRequest."""
    parsed = await _parse(body)
    if not isinstance(parsed, list) or not all(isinstance(step, dict) for step in cast("list[object]", parsed)):
        raise BadRequest("Invalid body: a JSON Patch is a list of operations.")


async def _parse(body: bytes) -> object:
    if len(body) > THREAD_BYTES:
        return await asyncio.to_thread(_read_strictly, body)
    return _read_strictly(body)


def check_match(given_type: object, given_id: object, resource_type: str, resource_id: str = "") -> None:
    """Type and id of the body against the URL, with the words of FG-7. A missing id is no mismatch."""
    if given_type != resource_type:
        raise BadRequest(f"Resource type mismatch: URL says '{resource_type}' but resource has '{_quoted(given_type)}'")
    if resource_id and given_id is not None and given_id != resource_id:
        raise BadRequest(f"Resource ID mismatch: URL says '{resource_id}' but resource has '{_quoted(given_id)}'")


def _quoted(value: object) -> str:
    return value[:_QUOTED] if isinstance(value, str) else "None"


def fill_id(body: bytes, resource_id: str) -> bytes:
    """The body with that id at its top level; everything else stays as it was written, digit by digit."""
    members = _members.decode(body)
    members["id"] = msgspec.Raw(msgspec.json.encode(resource_id))
    return msgspec.json.encode(members)


def with_id(resource: Mapping[str, Any], resource_id: str) -> Mapping[str, Any]:
    if resource.get("id") is None:
        return {**resource, "id": resource_id}
    check_match("", resource["id"], "", resource_id)
    return resource


def encode_resource(resource: Mapping[str, Any], resource_type: str) -> bytes:
    """A resource that came as a tool argument."""
    check_match(resource.get("resourceType"), None, resource_type)
    return _encoder.encode(resource)
