"""FHIRPath Patch on a decoded resource: add, insert, delete, replace, move; all or nothing (ST-20)."""

from __future__ import annotations

import copy
from typing import Any, cast

from msgspec import Struct

from wardmesh_fhir_store.elements import Elements
from wardmesh_fhir_store.faults import Fault, invalid
from wardmesh_fhir_store.jsontext import Tree
from wardmesh_fhir_store.patch_paths import Spot, children, find, steps_of

MOST_OPERATIONS = 1000
DEEPEST_VALUE = 20
TYPES = frozenset({"add", "insert", "delete", "replace", "move"})


class Operation(Struct, frozen=True, kw_only=True):
    type: str
    path: str
    name: str = ""
    index: int | None = None
    source: int | None = None
    destination: int | None = None
    value: Tree | None = None  # the part that carries it


def unprocessable(text: str) -> Fault:
    return Fault(422, "processing", text)


class FhirPathPatch:
    """Needs the definitions to know what repeats and how a choice is spelled."""

    def __init__(self, elements: Elements) -> None:
        self._elements = elements

    def patched(self, tree: Tree, parameters: Any) -> Tree:
        """The changed copy. 400 for a malformed document, 422 when an operation does not apply."""
        operations = read(parameters)
        document = copy.deepcopy(tree)
        for operation in operations:
            getattr(self, f"_{operation.type}")(document, operation)
        return document

    def _one(self, document: Tree, path: str) -> Spot:
        spots = find(self._elements, document, path)
        if len(spots) != 1:
            raise unprocessable("A path of the patch does not find exactly one element.")
        return spots[0]

    def _add(self, document: Tree, operation: Operation) -> None:
        spot = self._one(document, operation.path)
        if not isinstance(spot.value, dict) or not operation.name:
            raise unprocessable("An add needs a name and an element that has children.")
        owner = str(spot.value.get("resourceType", spot.kind))
        member, kind, many = self._member(owner, operation)
        value = self._value(kind, operation.value)
        if many:
            held = spot.value.setdefault(member, [])
            held.append(value)
            _sibling(spot.value, member).append(None)
        else:
            for other in (operation.name, *self._elements.choice(owner, operation.name)):
                spot.value.pop(other, None)
                spot.value.pop(f"_{other}", None)
            spot.value[member] = value

    def _member(self, owner: str, operation: Operation) -> tuple[str, str, bool]:
        """JSON member, type and whether it repeats; a choice is spelled after the type of the value."""
        member = operation.name
        if self._elements.choice(owner, member):
            member += _value_member(operation.value).removeprefix("value")
        element = self._elements.find(owner, member)
        if element is None:
            raise unprocessable("The patch names an element that the type does not have.")
        return member, element.kind, element.many

    def _value(self, kind: str, part: Tree | None, depth: int = 0) -> Any:
        """`valueX` as it stands, or an anonymous type out of named parts."""
        if part is None or depth > DEEPEST_VALUE:
            raise invalid("An operation of the patch lacks its value.")
        if "part" not in part:
            return copy.deepcopy(part[_value_member(part)])
        made: Tree = {}
        for item in _parts(part):
            name = str(item.get("name"))
            inner = Operation(type="add", path="", name=name, value=item)
            member, inner_kind, many = self._member(kind, inner)
            value = self._value(inner_kind, item, depth + 1)
            if many:
                made.setdefault(member, []).append(value)
            else:
                made[member] = value
        return made

    def _insert(self, document: Tree, operation: Operation) -> None:
        items, element, holder = self._list(document, operation.path)
        index = operation.index
        if index is None or index > len(items):
            raise unprocessable("The index of an insert is outside the list.")
        items.insert(index, self._value(element, operation.value))
        _sibling(*holder).insert(index, None)

    def _move(self, document: Tree, operation: Operation) -> None:
        items, _, holder = self._list(document, operation.path)
        source, destination = operation.source, operation.destination
        if source is None or destination is None or max(source, destination) >= len(items):
            raise unprocessable("A move needs a source and a destination inside the list.")
        items.insert(destination, items.pop(source))
        others = _sibling(*holder)
        if others:
            others.insert(destination, others.pop(source))

    def _list(self, document: Tree, path: str) -> tuple[list[Any], str, tuple[Tree, str]]:
        """The list that a path to a repeating element names, its type, and where it stands."""
        last = steps_of(path)[-1]
        before = path[: path.rfind(".")] if "." in path else ""
        if not isinstance(last, str) or not before or not path.endswith(last):
            raise unprocessable("A path of the patch does not name a list.")
        spot = self._one(document, before)
        owner = str(spot.value.get("resourceType", spot.kind)) if isinstance(spot.value, dict) else ""
        element = self._elements.find(owner, last)
        if element is None or not element.many:
            raise unprocessable("A path of the patch does not name a list.")
        return spot.value.setdefault(last, []), element.kind, (spot.value, last)

    def _replace(self, document: Tree, operation: Operation) -> None:
        spot = self._one(document, operation.path)
        if not spot.element:
            raise unprocessable("A patch does not replace the resource itself.")
        if isinstance(spot.key, int):
            spot.holder[spot.key] = self._value(spot.kind, operation.value)
            return
        element = self._elements.find(spot.owner, spot.element)
        stem = element.stem if element else spot.element
        named = Operation(type="replace", path="", name=stem, value=operation.value)
        member, kind, _ = self._member(spot.owner, named)
        value = self._value(kind, operation.value)
        for other in (spot.element, f"_{spot.element}"):
            spot.parent.pop(other, None)
        spot.parent[member] = value

    def _delete(self, document: Tree, operation: Operation) -> None:
        spots = find(self._elements, document, operation.path)
        if len(spots) > 1:
            raise unprocessable("A delete names more than one element.")
        if not spots:
            return
        spot = spots[0]
        if not spot.element:
            raise unprocessable("A patch does not delete the resource itself.")
        if isinstance(spot.key, int):
            index = spot.key
            spot.holder.pop(index)
            others = _sibling(spot.parent, spot.element)
            if others:
                others.pop(index)
        else:
            spot.parent.pop(spot.element)
            spot.parent.pop(f"_{spot.element}", None)
        _prune(self._elements, Spot(document, str(document.get("resourceType"))))


def _sibling(holder: Tree, member: str) -> list[Any]:
    """Extensions of primitives stand in a parallel list that is kept in step; without one, a list of no account."""
    others = holder.get(f"_{member}")
    return cast("list[Any]", others) if isinstance(others, list) else []


def _prune(elements: Elements, spot: Spot) -> None:
    """FHIR knows no empty objects and lists."""
    for name in list(spot.value):
        value = spot.value[name]
        for child in list(children(elements, spot, name)) if not name.startswith("_") else ():
            if isinstance(child.value, dict):
                _prune(elements, child)
        if isinstance(value, list):
            value[:] = [item for item in value if item != {}]
        if value in ({}, []):
            del spot.value[name]


def read(parameters: Any) -> list[Operation]:
    """The operations of a Parameters resource. Raises 400."""
    if not isinstance(parameters, dict) or parameters.get("resourceType") != "Parameters":
        raise invalid("A FHIRPath Patch is a Parameters resource.")
    given = parameters.get("parameter", [])
    if not isinstance(given, list) or len(given) > MOST_OPERATIONS:
        raise invalid("A FHIRPath Patch is a list of operations.")
    return [_operation(one) for one in given]


def _operation(one: Any) -> Operation:
    if not isinstance(one, dict) or one.get("name") != "operation":
        raise invalid("A parameter of a FHIRPath Patch is an operation.")
    parts = {str(part.get("name")): part for part in _parts(one)}
    texts = {name: _primitive(parts.get(name)) for name in ("type", "path", "name")}
    if texts["type"] not in TYPES or not texts["path"]:
        raise invalid("An operation of the patch lacks its type or path.")
    numbers = {name: _number(parts.get(name)) for name in ("index", "source", "destination")}
    value = parts.get("value")
    if (value is None) != (texts["type"] in ("delete", "move")):
        raise invalid("An operation of the patch lacks its value, or has one too many.")
    return Operation(type=texts["type"], path=texts["path"], name=texts["name"], value=value, **numbers)


def _parts(one: Tree) -> list[Tree]:
    parts = one.get("part")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise invalid("An operation of the patch has no parts.")
    return parts


def _value_member(part: Tree | None) -> str:
    members = [name for name in part or {} if name.startswith("value")]
    if len(members) != 1:
        raise invalid("An operation of the patch lacks its value.")
    return members[0]


def _primitive(part: Tree | None) -> str:
    value = part[_value_member(part)] if part is not None else ""
    if not isinstance(value, str):
        raise invalid("A part of the patch is not text.")
    return value


def _number(part: Tree | None) -> int | None:
    if part is None:
        return None
    value = part[_value_member(part)]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise invalid("A part of the patch is not a number.")
    return value
