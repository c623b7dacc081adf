"""JSON with exact decimals for the places that must change content (fhir.md J4), and strict reading of writes (J5)."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec

from wardmesh_common.errors import BadRequest

_decoder = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")
_lists = msgspec.json.Decoder(list[msgspec.Raw])
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])

Members = dict[str, msgspec.Raw]


def decode(data: bytes | msgspec.Raw) -> Any:
    return _decoder.decode(data)


def encode(value: Any) -> bytes:
    return _encoder.encode(value)


def members(data: bytes | msgspec.Raw) -> Members:
    """Only the top level; the values stay as they are."""
    return _members.decode(data)


def raw_list(data: bytes | msgspec.Raw) -> list[msgspec.Raw]:
    return _lists.decode(data)


def strict_object(body: bytes) -> dict[str, Any]:
    """A body that is about to be written: one JSON object without repeated keys.

    Two readers may choose different ones of two equal keys, so policy and platform could see different resources.
    """
    try:
        document = json.loads(body, object_pairs_hook=_no_repeats, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise BadRequest("The body is not valid JSON, or an object in it has a repeated member.") from None
    if not isinstance(document, dict):
        raise BadRequest("The body must be a JSON object.")
    return document


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found
