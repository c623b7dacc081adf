"""Turns the FHIRPath of SearchParameters into typed JSON paths, so that indexing needs no FHIRPath engine.

A branch is `[path, type, detail]`: path as the JSON has it (`telecom{system=phone}.value`, choices already spelled
`valueQuantity`), the FHIR type found there, and the target type of a `resolve()` filter or the implied code system.
"""

from __future__ import annotations

import re
from typing import Any

STEP = re.compile(r"(?:ofType|as)\((\w+)\)|where\(([^()]*(?:\(\))?[^()]*)\)|(\w+)")
COMMON_BASES = ("Resource", "DomainResource")
META = {
    "_profile": ["meta.profile", "canonical"],
    "_security": ["meta.security", "Coding"],
    "_source": ["meta.source", "uri"],
    "_tag": ["meta.tag", "Coding"],
}

# R4 names the definitions of these two components in the wrong order; the expressions are right.
ERRATA = {"DocumentReference.relationship": ("relation", "relatesto")}
Branch = list[str]


def split_union(expression: str) -> list[str]:
    """Branches of a top-level `|`."""
    parts, depth, start = [], 0, 0
    for position, letter in enumerate(expression):
        depth += (letter == "(") - (letter == ")")
        if letter == "|" and depth == 0:
            parts.append(expression[start:position])
            start = position + 1
    parts.append(expression[start:])
    return [part.strip() for part in parts]


def same_type(cast: str | None, kind: str) -> bool:
    """Some expressions write `DateTime` for the primitive `dateTime`; without a cast every type will do."""
    return cast is None or cast == kind or cast[0].lower() + cast[1:] == kind


class SearchCompiler:
    """Knows the element tables, so every path ends in a known type."""

    def __init__(
        self, types: dict[str, dict[str, str]], value_sets: dict[str, dict[str, Any]], resources: set[str]
    ) -> None:
        self.types = types
        self.value_sets = value_sets
        self.resources = resources

    def compile(self, definitions: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Type → code → definition; the common `meta` parameters stand under `Resource`."""
        found: dict[str, dict[str, Any]] = {name: {} for name in sorted(self.resources)}
        self.codes = {item["url"]: item["code"] for item in definitions}
        for item in definitions:
            for base in item["base"]:
                if base in self.resources and item.get("expression"):
                    self._add(found[base], base, item)
        codes = {item["code"]: item for item in definitions if item["base"][0] in COMMON_BASES}
        found["Resource"] = {code: {"type": codes[code]["type"], "paths": [branch]} for code, branch in META.items()}
        return found

    def _add(self, table: dict[str, Any], base: str, item: dict[str, Any]) -> None:
        entry: dict[str, Any] = {"type": item["type"]}
        branches: list[Branch] = []
        for part in split_union(item["expression"]):
            text = part.lstrip("(")
            if re.match(rf"{base}\b", text):
                branches += self.paths(base, text.removeprefix(base).lstrip("."))
        if not branches:
            return
        entry["paths"] = branches
        if item["type"] == "reference":
            entry["targets"] = sorted(t for t in item.get("target", []) if t in self.resources)
        if item["type"] == "composite":
            codes = [self.codes[c["definition"]] for c in item["component"]]
            codes = ERRATA.get(f"{base}.{item['code']}", codes)
            entry["components"] = [
                [code, *self._component(base, branches, c["expression"])]
                for code, c in zip(codes, item["component"], strict=True)
            ]
        table[item["code"]] = entry

    def _component(self, base: str, branches: list[Branch], expression: str) -> list[Branch]:
        if expression.startswith("%resource."):  # from the root, marked by ^
            rooted = self.paths(base, expression.removeprefix("%resource."))
            return [["^" + path, *rest] for path, *rest in rooted]
        kinds = {kind for _, kind, *_ in branches}
        found = [b for kind in sorted(kinds) for part in split_union(expression) for b in self.paths(kind, part)]
        return [branch for index, branch in enumerate(found) if branch not in found[:index]]

    def paths(self, owner: str, text: str) -> list[Branch]:
        """Typed JSON paths of one expression below `owner` (a type or backbone path)."""
        if text.startswith("deceased.exists()"):
            return [["deceased", "presence"]]
        if text.startswith("entry[0].resource"):
            return []  # a resource, not a reference: Bundle.composition and Bundle.message
        found: list[tuple[str, str, str]] = [("", owner, "")]
        steps = list(STEP.finditer(text.replace("$this", "")))
        for index, match in enumerate(steps):
            cast, condition, name = match.groups()
            if name:
                following = steps[index + 1].group(1) if index + 1 < len(steps) else None
                found = [b for path, kind, _ in found for b in self._step(path, kind, name, following)]
            elif condition:
                found = [self._filter(branch, condition) for branch in found]
            else:
                found = [branch for branch in found if same_type(cast, branch[1])]
        return [[path, kind, detail] if detail else [path, kind] for path, kind, detail in found]

    def _step(self, path: str, kind: str, name: str, cast: str | None) -> list[tuple[str, str, str]]:
        elements = self.types[kind]
        prefix = f"{path}." if path else ""
        if name in elements:
            words = elements[name].split(" ", 1)[1]
            return [(prefix + name, *self._kind(word)) for word in words.split("|")]
        if name == "extension":
            return [(prefix + name, "Extension", "")]
        if name in {"id", "meta", "language"}:
            return [(prefix + name, {"id": "id", "meta": "Meta", "language": "code"}[name], "")]
        words = elements[f"{name}[x]"].split(" ", 1)[1].split("|")
        choices = [self._kind(word) for word in words]
        return [(prefix + name + k[0].upper() + k[1:], k, detail) for k, detail in choices if same_type(cast, k)]

    def _kind(self, word: str) -> tuple[str, str]:
        if word.startswith("@"):
            return word[1:], ""
        if "!" in word:
            kind, name = word.split("!")
            return kind, self.value_sets[name].get("system", "")
        return word.split("(", maxsplit=1)[0], ""

    def _filter(self, branch: tuple[str, str, str], condition: str) -> tuple[str, str, str]:
        path, kind, _ = branch
        resolved = re.fullmatch(r"resolve\(\) is (\w+)", condition.strip())
        if resolved:
            return path, kind, resolved[1]
        name, value = re.fullmatch(r"(\w+)\s*=\s*'([^']+)'", condition.strip()).groups()  # type: ignore[union-attr]
        return f"{path}{{{name}={value}}}", kind, ""
