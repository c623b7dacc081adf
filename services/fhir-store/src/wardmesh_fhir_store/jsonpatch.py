"""JSON Patch (RFC 6902) on a decoded resource; all or nothing, numbers stay Decimals (ST-19)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from wardmesh_fhir_store.faults import Fault, invalid
from wardmesh_fhir_store.jsontext import Tree

MOST_OPERATIONS = 1000
NEEDS_VALUE = frozenset({"add", "replace", "test"})
NEEDS_FROM = frozenset({"move", "copy"})
_MISSING = object()


def unprocessable(text: str) -> Fault:
    return Fault(422, "processing", text)


def patched(tree: Tree, operations: Any) -> Any:
    """The changed copy. 400 for a malformed document, 422 when an operation does not apply."""
    if not isinstance(operations, list) or len(operations) > MOST_OPERATIONS:
        raise invalid("A JSON Patch is an array of operations.")
    checked = [_check(operation) for operation in operations]
    document: Any = copy.deepcopy(tree)
    for operation in checked:
        document = _apply(document, operation)
    return document


def _check(operation: Any) -> dict[str, Any]:
    if not isinstance(operation, dict):
        raise invalid("A JSON Patch operation is an object.")
    name = operation.get("op")
    if name not in OPERATIONS:
        raise invalid("A JSON Patch operation has an unknown op.")
    if name in NEEDS_VALUE and "value" not in operation:
        raise invalid("A JSON Patch operation lacks its value.")
    for member in ("path", "from") if name in NEEDS_FROM else ("path",):
        pointer = operation.get(member)
        if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
            raise invalid("A JSON Patch operation lacks a JSON Pointer.")
    return operation


def _apply(document: Any, operation: dict[str, Any]) -> Any:
    return OPERATIONS[operation["op"]](document, operation)


def _steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _index(step: str, length: int) -> int:
    if not (step.isascii() and step.isdigit()) or (step != "0" and step.startswith("0")) or len(step) > 9:
        raise unprocessable("A JSON Patch path does not exist.")
    index = int(step)
    if index >= length:
        raise unprocessable("A JSON Patch path does not exist.")
    return index


def _child(node: Any, step: str) -> Any:
    if isinstance(node, list):
        return node[_index(step, len(node))]
    if isinstance(node, dict) and step in node:
        return node[step]
    raise unprocessable("A JSON Patch path does not exist.")


def _get(document: Any, pointer: str) -> Any:
    for step in _steps(pointer):
        document = _child(document, step)
    return document


def _parent(document: Any, pointer: str) -> tuple[Any, str]:
    *steps, last = _steps(pointer)
    for step in steps:
        document = _child(document, step)
    return document, last


def _set(document: Any, pointer: str, value: Any) -> Any:
    if not pointer:
        return value
    parent, last = _parent(document, pointer)
    if isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else _index(last, len(parent) + 1), value)
    elif isinstance(parent, dict):
        parent[last] = value
    else:
        raise unprocessable("A JSON Patch path does not exist.")
    return document


def _add(document: Any, operation: dict[str, Any]) -> Any:
    return _set(document, operation["path"], operation["value"])


def _remove(document: Any, operation: dict[str, Any]) -> Any:
    if not operation["path"]:
        raise unprocessable("The whole resource cannot be removed by a patch.")
    parent, last = _parent(document, operation["path"])
    _child(parent, last)
    del parent[_index(last, len(parent)) if isinstance(parent, list) else last]
    return document


def _replace(document: Any, operation: dict[str, Any]) -> Any:
    if not operation["path"]:
        return operation["value"]
    parent, last = _parent(document, operation["path"])
    _child(parent, last)
    parent[_index(last, len(parent)) if isinstance(parent, list) else last] = operation["value"]
    return document


def _move(document: Any, operation: dict[str, Any]) -> Any:
    source, target = operation["from"], operation["path"]
    if target.startswith(source + "/"):
        raise unprocessable("A JSON Patch cannot move a value into itself.")
    value = _get(document, source)
    if source == target:
        return document
    return _set(_remove(document, {"path": source}), target, value)


def _copy(document: Any, operation: dict[str, Any]) -> Any:
    return _set(document, operation["path"], copy.deepcopy(_get(document, operation["from"])))


def _test(document: Any, operation: dict[str, Any]) -> Any:
    if not _same(_get(document, operation["path"]), operation["value"]):
        raise unprocessable("A JSON Patch test failed.")
    return document


def _same(left: Any, right: Any) -> bool:
    """Numbers by value; true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return type(left) is type(right) and left == right if isinstance(left, str) else left == right


OPERATIONS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "move": _move,
    "copy": _copy,
    "test": _test,
}
