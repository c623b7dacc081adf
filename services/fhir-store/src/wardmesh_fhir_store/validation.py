"""Structural validation of everything that is written; fails closed and names its depth (§3)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import jsonschema_rs

from wardmesh_fhir_store.definitions import Definitions
from wardmesh_fhir_store.faults import DEPTH_EXTENSION, Extension, Fault, Issue
from wardmesh_fhir_store.jsontext import Tree
from wardmesh_fhir_store.schema import SchemaBuilder

DEPTH = "structural"
MOST_ISSUES = 20
DEEPEST_NESTING = 20
_PLAIN_NAME = re.compile(r"[A-Za-z]{1,64}")
WORDS: dict[str, tuple[str, str]] = {
    "required": ("required", "A required element is missing"),
    "additionalProperties": ("structure", "An element is not defined here"),
    "type": ("structure", "The value has the wrong JSON type"),
    "pattern": ("value", "The value does not fit the format of its type"),
    "enum": ("code-invalid", "The code is not in the required value set"),
    "oneOf": ("structure", "A choice element needs exactly one type"),
    "minItems": ("structure", "An array must not be empty"),
    "minProperties": ("structure", "An object must not be empty"),
    "minimum": ("value", "The number is out of range"),
    "maximum": ("value", "The number is out of range"),
}


class Validator:
    """Compiles a schema at the first use of its type and keeps it."""

    def __init__(self, definitions: Definitions) -> None:
        self._types = definitions.resource_types
        self._builder = SchemaBuilder(definitions)
        self._compiled: dict[str, Any] = {}

    def issues(self, tree: Tree) -> list[Issue]:
        """What is wrong, at most a screenful; empty means structurally sound."""
        found: list[Issue] = []
        for place, resource in self._resources(tree, "", 0):
            found += self._judge(resource, place or str(resource.get("resourceType")))
            if len(found) >= MOST_ISSUES:
                break
        return found[:MOST_ISSUES]

    def check(self, tree: Tree) -> None:
        """Raises 422 with every issue found."""
        issues = self.issues(tree)
        if issues:
            depth = Extension(url=DEPTH_EXTENSION, value_code=DEPTH)
            raise Fault(422, "", "The resource is not valid.", issues=tuple(issues), extensions=(depth,))

    def _judge(self, resource: Tree, place: str) -> Iterator[Issue]:
        kind = resource.get("resourceType")
        if not isinstance(kind, str) or kind not in self._types:
            yield Issue(code="structure", diagnostics="The resource type is unknown.", expression=(place,))
            return
        for error in self._schema(kind).iter_errors(resource):
            yield _issue(error, place)

    def _schema(self, kind: str) -> Any:
        if kind not in self._compiled:
            self._compiled[kind] = jsonschema_rs.Draft202012Validator(self._builder.schema(kind))
        return self._compiled[kind]

    def _resources(self, tree: Tree, place: str, depth: int) -> Iterator[tuple[str, Tree]]:
        """The resource and every one nested in it: contained, Bundle entries, Parameters."""
        if depth > DEEPEST_NESTING:
            raise Fault(422, "too-costly", "Resources are nested too deeply.")
        yield place, tree
        kind = str(tree.get("resourceType"))
        for path, child in _nested(kind, tree):
            yield from self._resources(child, f"{place or kind}.{path}", depth + 1)


def _nested(kind: str, tree: Tree) -> Iterator[tuple[str, Tree]]:
    for index, child in enumerate(_objects(tree.get("contained"))):
        yield f"contained[{index}]", child
    if kind == "Bundle":
        for index, entry in enumerate(_objects(tree.get("entry"))):
            for name in ("resource",):
                if isinstance(entry.get(name), dict):
                    yield f"entry[{index}].{name}", entry[name]
            response = entry.get("response")
            if isinstance(response, dict) and isinstance(response.get("outcome"), dict):
                yield f"entry[{index}].response.outcome", response["outcome"]
    if kind == "Parameters":
        yield from _parameters(tree, 0)


def _parameters(tree: Tree, depth: int, name: str = "parameter") -> Iterator[tuple[str, Tree]]:
    for index, part in enumerate(_objects(tree.get(name))):
        if isinstance(part.get("resource"), dict):
            yield f"{name}[{index}].resource", part["resource"]
        if depth < DEEPEST_NESTING:
            for path, child in _parameters(part, depth + 1, "part"):
                yield f"{name}[{index}].{path}", child


def _objects(value: Any) -> list[Tree]:
    return [cast("Tree", item) for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _issue(error: Any, place: str) -> Issue:
    kind: str = error.kind.name
    code, text = WORDS.get(kind, ("invalid", "The value is not allowed here"))
    path = place
    for step in error.instance_path:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if _PLAIN_NAME.fullmatch(step) else "._"
    if kind == "required":
        missing = str(error.kind.property)
        path += f".{missing}" if _PLAIN_NAME.fullmatch(missing) else ""
    return Issue(code=code, diagnostics=f"{text}.", expression=(path,))
