"""Evaluates FHIRPath constraints on a resource; what cannot be evaluated is named, never passed over (§3)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import fhirpathpy
from fhirpathpy.engine.nodes import ResourceNode
from fhirpathpy.models import models
from msgspec import Struct

from wardmesh_fhir_store.definitions.rules import Rule
from wardmesh_fhir_store.elements import Elements
from wardmesh_fhir_store.faults import Issue
from wardmesh_fhir_store.jsontext import Tree

# Functions that need a terminology server, other resources or a validator; and what the engine does not know.
OUT_OF_REACH = re.compile(r"resolve\(|memberOf\(|conformsTo\(|htmlChecks\(|subsumes\(|hasTemplateIdOf\(|comparable\(")
DEEPEST = 40


class Place(Struct, frozen=True):
    """A node: its element path in the definitions, its type, where it stands, and the resources that hold it."""

    node: Any
    path: str
    kind: str
    where: str
    resource: Any = None  # the innermost one
    root: Any = None  # its container, when it is contained


class Verdict(Struct):
    issues: list[Issue] = []
    skipped: set[str] = set()  # keys that were not evaluated


def silent(*_: object) -> None:
    """`trace()` in an expression would print what it looks at."""


@lru_cache(maxsize=2048)
def compiled(expression: str) -> Any:
    """None when the engine cannot read it."""
    if OUT_OF_REACH.search(expression):
        return None
    try:
        return fhirpathpy.compile(expression, model=models["r4"], options={"traceFn": silent})
    except Exception:  # noqa: BLE001 - the engine's parser has no exception class of its own
        return None


class Invariants:
    """Keeps the compiled expressions; parsing one costs a millisecond."""

    def __init__(self, elements: Elements, rules: dict[str, list[Rule]]) -> None:
        self._elements = elements
        self._rules = rules

    def judge(self, tree: Tree) -> Verdict:
        """Every constraint of the resource, its elements and their types."""
        verdict = Verdict([], set())
        for place in self.places(tree, str(tree.get("resourceType")), ""):
            owners = dict.fromkeys((place.path, place.kind))
            if "resourceType" in (place.node if isinstance(place.node, dict) else {}):
                owners["DomainResource"] = None
            for owner in owners:
                for rule in self._rules.get(owner, ()):
                    check(rule, place, verdict)
        return verdict

    def places(self, node: Any, kind: str, where: str, above: Place | None = None, path: str = "") -> Iterator[Place]:
        """The node and everything below it that the definitions know."""
        resource, root = (above.resource, above.root) if above else (node, node)
        if isinstance(node, dict) and "resourceType" in node:
            resource, root = node, root if path.endswith(".contained") else node
            kind = path = str(node["resourceType"])
        where = where or kind
        here = Place(node, path or kind, kind, where, resource, root)
        yield here
        if not isinstance(node, dict) or where.count(".") > DEEPEST:
            return
        for member, value in node.items():
            element = self._elements.find(kind, member) if not member.startswith("_") else None
            if element is None or value is None:
                continue
            several = isinstance(value, list)
            for index, item in enumerate(value if several else [value]):
                if item is not None:
                    place = f"{where}.{member}" + (f"[{index}]" if several else "")
                    yield from self.places(item, element.kind, place, here, element.path)


def check(rule: Rule, place: Place, verdict: Verdict) -> None:
    """One constraint at one place."""
    run = compiled(rule.expression)
    if run is None:
        verdict.skipped.add(rule.key)
        return
    try:
        node = ResourceNode.create_node(place.node, place.kind)
        found = run(node, {"resource": place.resource, "rootResource": place.root, "context": node})
    except Exception:  # noqa: BLE001 - the engine raises plain exceptions for what it cannot evaluate
        verdict.skipped.add(rule.key)
        return
    if found == [False]:
        severity = "error" if rule.severity == "error" else "warning"
        text = f"{rule.key}: {rule.human}"
        verdict.issues.append(Issue(severity=severity, code="invariant", diagnostics=text, expression=(place.where,)))
    elif found not in ([True], []):
        verdict.skipped.add(rule.key)
