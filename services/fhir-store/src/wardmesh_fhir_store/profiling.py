"""Judges a resource against a profile: cardinality, fixed values, patterns, slices, listed bindings (§3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from wardmesh_fhir_store.definitions.rules import Profile, ProfileElement, Profiles
from wardmesh_fhir_store.elements import Elements
from wardmesh_fhir_store.faults import Issue
from wardmesh_fhir_store.invariants import Place, Verdict, check
from wardmesh_fhir_store.jsontext import Tree

DEEPEST = 6


class Node(Struct, frozen=True):
    value: Any
    kind: str
    where: str
    present: bool = True


class Report(Struct):
    """`unjudged` are notes on what was not evaluated, `absent` the must-support elements that are not there."""

    verdict: Verdict
    unjudged: dict[str, None] = {}
    absent: dict[str, None] = {}


class ProfileChecker:
    """Profiles that elements name (extensions) are followed."""

    def __init__(self, elements: Elements, profiles: Profiles) -> None:
        self._elements = elements
        self._profiles = profiles

    def judge(self, tree: Tree, profile: Profile) -> Report:
        report = Report(Verdict([], set()), {}, {})
        kind = str(tree.get("resourceType"))
        if kind != profile.type:
            _error(report, "structure", "The profile is for another type.", kind)
            return report
        _Walk(self._elements, self._profiles, profile, tree, report, 0).check(Node(tree, kind, kind), profile.type)
        return report


class _Walk:
    """One profile on one resource (or extension)."""

    def __init__(
        self, elements: Elements, profiles: Profiles, profile: Profile, tree: Tree, report: Report, depth: int
    ) -> None:
        self._elements = elements
        self._profiles = profiles
        self._profile = profile
        self._tree = tree
        self._report = report
        self._depth = depth
        self._children: dict[str, dict[str, list[str]]] = {}
        for identity in profile.elements:
            self._place(identity)

    def _place(self, identity: str) -> None:
        """Parent id → child id → the slices of the child; parents that the extract dropped are kept in mind."""
        parent, _, leaf = identity.rpartition(".")
        if not parent:
            return
        name, _, sliced = leaf.partition(":")
        slices = self._children.setdefault(parent, {}).setdefault(f"{parent}.{name}", [])
        if sliced and identity not in slices:
            slices.append(identity)
        if parent not in self._profile.elements:
            self._place(parent)

    def check(self, node: Node, identity: str) -> None:
        """The node itself, then what stands below it."""
        element = self._profile.elements.get(identity, ProfileElement())
        self._judge(node, element)
        for child, slices in self._children.get(identity, {}).items():
            below = list(self._below(node, child.rpartition(".")[2]))
            self._count(node, child, len(below))
            for one in below:
                self.check(one, child)
            if slices:
                self._sliced(node, child, slices, below)

    def _below(self, node: Node, name: str) -> Iterator[Node]:
        if not isinstance(node.value, dict):
            return
        stem = name.removesuffix("[x]")
        members = self._elements.choice(node.kind, stem) if name.endswith("[x]") else [stem]
        for member in members:
            element = self._elements.find(node.kind, member)
            value, beside = node.value.get(member), node.value.get(f"_{member}")
            if element is None or (value is None and beside is None):
                continue
            several = isinstance(value, list) or isinstance(beside, list)
            items = value if isinstance(value, list) else beside if several else [value]
            for index, item in enumerate(items or []):
                where = f"{node.where}.{member}" + (f"[{index}]" if several else "")
                yield Node(item, element.kind, where)

    def _count(self, node: Node, identity: str, number: int) -> None:
        element = self._profile.elements.get(identity)
        if element is None:
            return
        where = f"{node.where}.{identity.rpartition('.')[2].partition(':')[0].removesuffix('[x]')}"
        if number < element.min:
            named = f" ({identity.rpartition(':')[2]})" if ":" in identity.rpartition(".")[2] else ""
            _error(self._report, "required", f"The profile wants at least {element.min} of this{named}.", where)
        if element.max != "*" and number > int(element.max):
            _error(self._report, "structure", f"The profile allows at most {element.max} of this.", where)
        if element.must and not number:
            self._report.absent[identity] = None

    def _judge(self, node: Node, element: ProfileElement) -> None:
        if element.types and node.kind not in element.types and node.kind[:1].islower() | (node.kind in KINDS):
            _error(self._report, "structure", "The profile allows other types here.", node.where)
        if element.fixed is not None and node.value != element.fixed:
            _error(self._report, "value", "The profile fixes another value here.", node.where)
        if element.pattern is not None and not fits(node.value, element.pattern):
            _error(self._report, "value", "The value does not fit the pattern of the profile.", node.where)
        if element.binding is not None:
            self._bound(node, element)
        for rule in element.rules:
            place = Place(node.value, node.kind, node.kind, node.where, self._tree, self._tree)
            check(rule, place, self._report.verdict)
        if element.profile and self._depth < DEEPEST:
            self._follow(node, element.profile)

    def _follow(self, node: Node, canonical: str) -> None:
        profile = self._profiles.find(canonical)
        if profile is None:
            self._report.unjudged[f"profile {canonical}"] = None
        elif profile.type == node.kind:
            walk = _Walk(self._elements, self._profiles, profile, self._tree, self._report, self._depth + 1)
            walk.check(node, profile.type)

    def _bound(self, node: Node, element: ProfileElement) -> None:
        binding = element.binding
        assert binding is not None
        if binding.strength != "required" or not binding.codes:
            self._report.unjudged[f"binding {binding.set} ({binding.strength})"] = None
            return
        listed = set(binding.codes)
        given = codes_of(node.value)
        plain = {entry.partition("|")[2] for entry in listed}
        good = any(code in listed or (code.startswith("|") and code[1:] in plain) for code in given)
        if given and not good:
            _error(self._report, "code-invalid", "The code is not in the required value set.", node.where)

    def _sliced(self, node: Node, child: str, slices: list[str], below: list[Node]) -> None:
        slicing = self._profile.elements.get(child, ProfileElement()).slicing
        taken: set[int] = set()
        for identity in slices:
            own = self._profile.elements.get(identity, ProfileElement())
            matched = [self._matches(one, identity, own, slicing.by if slicing else []) for one in below]
            if None in matched or (not below and not own.min):
                if below:
                    self._report.unjudged[f"slice {identity}"] = None
                continue
            members = [one for one, match in zip(below, matched, strict=True) if match]
            taken |= {index for index, match in enumerate(matched) if match}
            self._count(node, identity, len(members))
            for one in members:
                self.check(one, identity)
        if slicing and slicing.rules == "closed" and len(taken) < len(below):
            _error(self._report, "structure", "The profile allows no other elements here.", node.where)

    def _matches(self, node: Node, identity: str, own: ProfileElement, by: list[tuple[str, str]]) -> bool | None:
        """None when the discriminator cannot be evaluated."""
        if not by:
            return node.kind in own.types if own.types else None
        verdict: bool | None = True
        for kind, path in by:
            one = self._discriminates(node, identity, own, kind, path)
            if one is False:
                return False
            verdict = None if one is None else verdict
        return verdict

    def _discriminates(self, node: Node, identity: str, own: ProfileElement, kind: str, path: str) -> bool | None:
        if kind == "type" and path == "$this":
            return node.kind in own.types
        if path == "url" and own.profile:
            return isinstance(node.value, dict) and node.value.get("url") == own.profile.partition("|")[0]
        return self._by_value(node, identity, kind, path) if kind in ("value", "pattern", "exists") else None

    def _by_value(self, node: Node, identity: str, kind: str, path: str) -> bool | None:
        at = identity if path == "$this" else f"{identity}.{path}"
        wanted = self._profile.elements.get(at)
        values = [node.value] if path == "$this" else list(_along(node.value, path.split(".")))
        if kind == "exists":
            return None if wanted is None else bool(values) == (wanted.max != "0")
        if wanted is not None and wanted.binding and wanted.binding.codes:
            return any(code in wanted.binding.codes for value in values for code in codes_of(value))
        for given in (wanted.fixed, wanted.pattern) if wanted else ():
            if given is not None:
                return any(fits(value, given) for value in values)
        return self._inherited(node, identity, path)

    def _inherited(self, node: Node, identity: str, path: str) -> bool | None:
        """The value that discriminates may be fixed on an ancestor of its path, as a whole."""
        steps = path.split(".") if path != "$this" else []
        for length in range(len(steps)):
            at = ".".join((identity, *steps[:length]))
            wanted = self._profile.elements.get(at)
            for given in (wanted.fixed, wanted.pattern) if wanted else ():
                if given is not None:
                    values = [node.value] if not length else list(_along(node.value, steps[:length]))
                    return any(fits(value, given) for value in values)
        return None


KINDS = frozenset({"Quantity", "CodeableConcept", "Coding", "Range", "Ratio", "Period", "Timing", "SampledData"})


def _along(value: Any, steps: list[str]) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _along(item, steps)
    elif not steps:
        yield value
    elif isinstance(value, dict) and steps[0] in value:
        yield from _along(value[steps[0]], steps[1:])


def fits(value: Any, pattern: Any) -> bool:
    """Everything in the pattern is in the value; an array of the pattern needs a match for each item."""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(n in value and fits(value[n], p) for n, p in pattern.items())
    if isinstance(pattern, list):
        return isinstance(value, list) and all(any(fits(one, p) for one in value) for p in pattern)
    return value == pattern


def codes_of(value: Any) -> list[str]:
    """`system|code` of a coded value; a plain code has no system."""
    if isinstance(value, str):
        return [f"|{value}"]
    if not isinstance(value, dict):
        return []
    if "coding" in value:
        return [code for coding in value["coding"] for code in codes_of(coding)]
    return [f"{value.get('system', '')}|{value['code']}"] if "code" in value else []


def _error(report: Report, code: str, text: str, where: str) -> None:
    report.verdict.issues.append(Issue(code=code, diagnostics=text, expression=(where,)))
