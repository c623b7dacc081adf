"""The paths of FHIRPath Patch: navigation to places in a resource; filters are full FHIRPath."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import fhirpathpy
from fhirpathpy.models import models
from msgspec import Struct

from wardmesh_fhir_store.elements import Elements
from wardmesh_fhir_store.faults import Fault, invalid
from wardmesh_fhir_store.invariants import silent

LONGEST_PATH = 500
_COSTLY = re.compile(r"\b(matches|replaceMatches|repeat|descendants|trace|aggregate)\b")  # no bound on their work
_STEP = re.compile(r"\.?(?:([A-Za-z_]\w*)(\()?|\[(\d{1,6})\])", re.ASCII)


class Spot(Struct, frozen=True):
    """A value and where it stands: `holder[key]`; `kind` is its type or backbone path. The root has no holder."""

    value: Any
    kind: str
    holder: Any = None
    key: str | int = ""
    owner: str = ""  # type of the object that has the element
    parent: Any = None  # that object
    element: str = ""  # JSON member of the element in it


class Function(Struct, frozen=True):
    name: str
    argument: str


Step = str | int | Function


@lru_cache(maxsize=512)
def steps_of(path: str) -> tuple[Step, ...]:
    """Raises 400 for what is not a path."""
    if len(path) > LONGEST_PATH:
        raise invalid("A path of the patch is too long.")
    steps: list[Step] = []
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if not match:
            raise invalid("A path of the patch cannot be read.")
        name, call, index = match.groups()
        position = match.end()
        if index is not None:
            steps.append(int(index))
        elif call:
            end = _closing(path, position)
            steps.append(Function(name, path[position:end].strip()))
            position = end + 1
        else:
            steps.append(name)
    return tuple(steps)


def _closing(path: str, position: int) -> int:
    """The matching parenthesis; quoted text is skipped."""
    depth, quote = 1, ""
    while position < len(path):
        letter = path[position]
        if quote:
            position += letter == "\\"
            quote = "" if letter == quote else quote
        elif letter in "'`":
            quote = letter
        elif letter in "()":
            depth += 1 if letter == "(" else -1
            if depth == 0:
                return position
        position += 1
    raise invalid("A path of the patch cannot be read.")


@lru_cache(maxsize=512)
def _compiled(expression: str) -> Any:
    if _COSTLY.search(expression):
        raise invalid("A filter in a path of the patch uses a function that is not offered.")
    try:
        return fhirpathpy.compile(expression, model=models["r4"], options={"traceFn": silent})
    except Exception:  # noqa: BLE001 - the engine's parser has no exception class of its own
        raise invalid("A filter in a path of the patch cannot be read.") from None


def find(elements: Elements, tree: dict[str, Any], path: str) -> list[Spot]:
    """Every place that the path names, in the order of the document."""
    kind = str(tree.get("resourceType"))
    steps = steps_of(path)
    if not steps or steps[0] not in (kind, "Resource", "DomainResource"):
        raise invalid("A path of the patch must begin with the type of the resource.")
    spots = [Spot(tree, kind)]
    for step in steps[1:]:
        if isinstance(step, int):
            spots = spots[step : step + 1]
        elif isinstance(step, Function):
            spots = _apply(elements, spots, step)
        else:
            spots = [child for spot in spots for child in children(elements, spot, step)]
    return spots


def children(elements: Elements, spot: Spot, name: str) -> Iterator[Spot]:
    """The values of one element; a choice is named by its stem."""
    node = spot.value
    if not isinstance(node, dict):
        return
    owner = str(node["resourceType"]) if "resourceType" in node else spot.kind
    for member in (name, *elements.choice(owner, name)):
        element = elements.find(owner, member)
        value = node.get(member)
        if element is None or value is None or (member == name and element.name.endswith("[x]")):
            continue
        if isinstance(value, list):
            for index, item in enumerate(value):
                yield Spot(item, element.kind, value, index, owner, node, member)
        else:
            yield Spot(value, element.kind, node, member, owner, node, member)


def _apply(elements: Elements, spots: list[Spot], function: Function) -> list[Spot]:
    if function.name == "where":
        return [spot for spot in spots if _holds(function.argument, spot.value)]
    if function.name in ("ofType", "as"):
        return [spot for spot in spots if spot.kind == function.argument]
    if function.name == "extension":
        wanted = function.argument.strip("'\"`")
        found = [child for spot in spots for child in children(elements, spot, "extension")]
        return [spot for spot in found if isinstance(spot.value, dict) and spot.value.get("url") == wanted]
    if function.argument:
        raise invalid("A path of the patch uses a function that is not offered.")
    if function.name == "first":
        return spots[:1]
    if function.name == "last":
        return spots[-1:]
    if function.name == "single":
        if len(spots) > 1:
            raise Fault(422, "processing", "A path of the patch finds several elements.")
        return spots
    raise invalid("A path of the patch uses a function that is not offered.")


def _holds(expression: str, value: Any) -> bool:
    compiled = _compiled(expression)
    try:
        return compiled(value, {}) == [True]
    except Exception:  # noqa: BLE001 - the engine raises plain exceptions for what does not fit the data
        raise Fault(422, "processing", "A filter in a path of the patch cannot be evaluated.") from None
