"""FHIRPath Patch: a list of operations as the Parameters resource that a FHIR server takes (HL-5, X-41)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from wardmesh_common.errors import BadRequest

_TYPES = frozenset({"add", "insert", "delete", "replace", "move"})
_NUMBERS = ("index", "source", "destination")
_UNCLEAR = "Invalid patch_operations: name the type of a value that is an object, for example valueHumanName."


def parameters_of(operations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """As it came when it is one already. Raises BadRequest."""
    if len(operations) == 1 and operations[0].get("resourceType") == "Parameters":
        return dict(operations[0])
    return {"resourceType": "Parameters", "parameter": [_operation(each) for each in operations]}


def _operation(given: Mapping[str, Any]) -> dict[str, Any]:
    kind = given.get("type", given.get("op"))
    kind = "delete" if kind == "remove" else kind
    path = given.get("path")
    if kind not in _TYPES or not isinstance(path, str) or not path:
        raise BadRequest("Invalid patch_operations: each needs a type of FHIRPath Patch and a path.")
    parts: list[dict[str, Any]] = [{"name": "type", "valueCode": kind}, {"name": "path", "valueString": path}]
    if isinstance(given.get("name"), str):
        parts.append({"name": "name", "valueString": given["name"]})
    parts += [{"name": name, "valueInteger": given[name]} for name in _NUMBERS if name in given]
    typed = [name for name in given if name.startswith("value") and name != "value"]
    if typed:
        parts.append({"name": "value", typed[0]: given[typed[0]]})
    elif "value" in given:
        parts.append({"name": "value", **_value(given["value"])})
    return {"name": "operation", "part": parts}


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"valueBoolean": value}
    if isinstance(value, str):
        return {"valueString": value}
    if isinstance(value, int):
        return {"valueInteger": value}
    if isinstance(value, (float, Decimal)):
        return {"valueDecimal": value}
    if isinstance(value, Mapping) and len(value) == 1 and next(iter(value)).startswith("value"):
        return dict(value)
    raise BadRequest(_UNCLEAR)
