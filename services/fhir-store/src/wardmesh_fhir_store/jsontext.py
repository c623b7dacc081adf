"""Reads and writes resources without changing what was sent: exact numbers, no duplicate keys, raw members."""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn, cast

import msgspec
from msgspec import Raw, Struct

from wardmesh_fhir_store.faults import Fault, invalid

Tree = dict[str, Any]
Members = dict[str, Raw]

_MEMBERS = msgspec.json.Decoder(Members)
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
MALFORMED = "The body is not well-formed JSON."


def _unique(pairs: list[tuple[str, Any]]) -> Tree:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise invalid("A JSON object has the same member twice.")
    return tree


def _no_constant(_: str) -> NoReturn:
    raise invalid(MALFORMED)


def decode(body: bytes) -> Any:
    """Any JSON value with Decimals; refuses duplicate members (J5), NaN, lone surrogates and absurd depth."""
    try:
        text = body.decode("utf-8")
        value = json.loads(text, parse_float=Decimal, object_pairs_hook=_unique, parse_constant=_no_constant)
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False, default=str).encode("utf-8")
    except (ValueError, RecursionError, InvalidOperation):
        raise invalid(MALFORMED) from None
    return value


def decode_object(body: bytes) -> Tree:
    value = decode(body)
    if not isinstance(value, dict):
        raise invalid("The body is not a JSON object.")
    return cast("Tree", value)


def members_of(body: bytes | Raw) -> Members:
    """Top-level members with their exact bytes."""
    try:
        return _MEMBERS.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise invalid(MALFORMED) from None


def encode(tree: Any) -> bytes:
    """Only for content that we changed (J4): the value of a decimal stays, its spelling may not."""
    try:
        return _ENCODER.encode(tree)
    except (msgspec.MsgspecError, RecursionError, UnicodeError, OverflowError):
        raise Fault(422, "processing", "The result cannot be written as JSON.") from None


def stamp(members: Members, kind: str, identity: str, version: int, updated: str) -> bytes:
    """The bytes to store: as received, except `id` and `meta` (ST-1, ST-2)."""
    meta = dict(_MEMBERS.decode(members["meta"])) if "meta" in members else {}
    meta = {"versionId": _raw(str(version)), "lastUpdated": _raw(updated)} | {
        name: value for name, value in meta.items() if name.lstrip("_") not in {"versionId", "lastUpdated"}
    }
    out: dict[str, Any] = {"resourceType": kind, "id": identity, "meta": meta}
    for name, value in members.items():
        if name not in out:
            out[name] = value
    return msgspec.json.encode(out)


def _raw(text: str) -> Raw:
    return Raw(msgspec.json.encode(text))


class Peek(Struct, frozen=True, rename="camel"):
    """Only what names a resource."""

    resource_type: str = ""
    id: str = ""
