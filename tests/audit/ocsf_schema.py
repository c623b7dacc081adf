"""Checks an OCSF event against the facts of the official schema: what it requires, knows, allows and constrains."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

Json = dict[str, Any]
FACTS: Json = json.loads((Path(__file__).parent / "golden" / "ocsf-1.7.json").read_text())
_NUMBERS = {"integer_t": int, "long_t": int, "timestamp_t": int, "port_t": int, "float_t": (int, float)}
_ANYTHING = ("json_t", "object")  # `unmapped` and its like


def complaints(event: Json) -> list[str]:
    """What the schema has against this event, by path."""
    found = list(_of_object(event, FACTS["class"], ""))
    if event.get("type_uid") != event.get("class_uid", 0) * 100 + event.get("activity_id", 0):
        found.append("type_uid: it is not class_uid * 100 + activity_id")
    if (event.get("metadata") or {}).get("version") != FACTS["class"]["version"]:
        found.append("metadata.version: another schema")
    return found


def _of_object(value: Json, facts: Json, path: str) -> Iterator[str]:
    attributes: Json = facts["attributes"]
    for name, fact in attributes.items():
        if fact["requirement"] == "required" and name not in value:
            yield f"{path}{name}: required"
    for name, each in value.items():
        if name not in attributes:
            yield f"{path}{name}: not in the schema"
        elif bool(attributes[name].get("is_array")) != isinstance(each, list):
            yield f"{path}{name}: an array, or not"
        else:
            for item in each if isinstance(each, list) else [each]:
                yield from _of_value(item, attributes[name], f"{path}{name}")
    for rule, names in facts.get("constraints", {}).items():
        there = sum(name in value for name in names)
        if (rule == "at_least_one" and not there) or (rule == "just_one" and there != 1):
            yield f"{path}: {rule} of {names}"


def _of_value(value: Any, fact: Json, path: str) -> Iterator[str]:
    kind = fact["type"]
    if kind == "object_t" and fact["object"] not in _ANYTHING:
        if not isinstance(value, dict):
            yield f"{path}: no object"
        else:
            yield from _of_object(value, FACTS["objects"][fact["object"]], f"{path}.")  # pyright: ignore[reportUnknownArgumentType]
    elif kind in _NUMBERS and (isinstance(value, bool) or not isinstance(value, _NUMBERS[kind])):
        yield f"{path}: no number"
    elif kind == "boolean_t" and not isinstance(value, bool):
        yield f"{path}: not true or false"
    elif kind not in (*_NUMBERS, *_ANYTHING, "object_t", "boolean_t") and not (isinstance(value, str) and value):
        yield f"{path}: no text"
    elif kind == "ip_t" and not _is_address(value):
        yield f"{path}: no address"
    if "enum" in fact and str(value) not in fact["enum"]:
        yield f"{path}: not in the enumeration"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
