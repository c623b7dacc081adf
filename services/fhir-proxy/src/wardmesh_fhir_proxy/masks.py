"""Hide what policy said to hide: masks on decoded resources, contained and nested ones included (B-12)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from wardmesh_common.vocabulary import Mask

REDACTED = "[redacted]"
KEPT_ALWAYS = frozenset({"resourceType", "id", "meta"})
PEOPLE = frozenset({"Patient", "Person", "RelatedPerson"})


class Masks:
    """All masks that hold for one answer, by resource type."""

    def __init__(self, masks: Iterable[Mask]) -> None:
        self.by_type: dict[str, list[Mask]] = {}
        for mask in masks:
            self.by_type.setdefault(mask.type, []).append(mask)
        self._everywhere = self.by_type.get("*", [])
        # A hidden name must not come back as the display text of a reference to that person.
        self._hidden_people = {kind for kind in PEOPLE if self._hides_names(kind)} if self.by_type else set[str]()

    def _hides_names(self, kind: str) -> bool:
        return any(mask.action == "keep" or mask.path.split(".")[0] == "name" for mask in self.of(kind))

    def of(self, kind: str) -> list[Mask]:
        return [*self.by_type.get(kind, []), *self._everywhere]

    def concern(self, kinds: Iterable[str]) -> bool:
        """True when a resource with these types (its own and contained ones) must be decoded and changed."""
        return bool(self.by_type) and (
            bool(self._hidden_people) or any(kind in self.by_type for kind in kinds) or bool(self._everywhere)
        )

    def apply(self, resource: dict[str, Any]) -> bool:
        """Change the resource in place; True when a mask holds for it or for something inside it."""
        kind = str(resource.get("resourceType", ""))
        masked = False
        for nested in nested_resources(resource):
            masked = self.apply(nested) or masked
        for mask in self.of(kind):
            masked = True
            apply_mask(resource, mask)
        if self._hidden_people and _hide_displays(resource, self._hidden_people):
            masked = True
        if masked:
            # The narrative repeats what the elements said.
            _drop(resource, "text")
        return masked

    def fingerprint(self, kinds: Iterable[str]) -> str:
        """Names exactly the masks that shaped a copy; "" when none did (PX-7)."""
        rules = [mask for kind in sorted(set(kinds)) for mask in self.of(kind)]
        for kind in sorted(self._hidden_people):
            rules.extend(self.of(kind))
        if not rules:
            return ""
        return hashlib.sha256(msgspec.msgpack.encode(rules)).hexdigest()[:16]


def nested_resources(value: Any) -> Iterable[dict[str, Any]]:
    """Resources directly inside this one: contained, Bundle entries, Parameters; not inside those again."""
    children = value.values() if isinstance(value, dict) else value
    for child in children:
        if isinstance(child, dict) and "resourceType" in child:
            yield child
        elif isinstance(child, dict | list):
            yield from nested_resources(child)


def apply_mask(resource: dict[str, Any], mask: Mask) -> None:
    if not mask.path:
        if mask.action == "keep":
            _keep(resource, mask.value)
        else:
            _keep(resource, "")  # an unclear mask hides everything rather than nothing
        return
    _walk(resource, mask.path.split("."), mask)


def _walk(node: Any, segments: list[str], mask: Mask) -> None:
    if isinstance(node, list):
        for item in node:
            _walk(item, segments, mask)
    elif isinstance(node, dict):
        for name in _matching(node, segments[0]):
            if len(segments) > 1:
                _walk(node[name], segments[1:], mask)
            else:
                _change(node, name, mask)


def _matching(node: dict[str, Any], segment: str) -> list[str]:
    """`value[x]` stands for every choice of that element; a name also finds its `_name` sibling."""
    if segment.endswith("[x]"):
        stem = segment[:-3]
        hits = [k for k in node if k.lstrip("_").startswith(stem) and k.lstrip("_")[len(stem) :][:1].isupper()]
    else:
        hits = [name for name in (segment, f"_{segment}") if name in node]
    return hits


def _change(node: dict[str, Any], name: str, mask: Mask) -> None:
    value = node.get(name)
    if name.startswith("_"):
        # Extensions of a primitive may hold the same fact again (birthTime beside birthDate).
        _drop(node, name)
    elif mask.where and _holds_objects(value):
        items = value if isinstance(value, list) else [value]
        kept = [_changed(item, mask) if _selected(item, mask.where) else item for item in items]
        left = [item for item in kept if item is not None]
        node[name] = left if isinstance(value, list) else left[0] if left else None
    elif mask.where and not _selected(node, mask.where):
        return
    else:
        node[name] = _changed(value, mask)
    if name in node and (node[name] is None or node[name] in ([], {})):
        _drop(node, name)


def _changed(value: Any, mask: Mask) -> Any:
    """The masked value; None = nothing is left. An action we do not know removes."""
    if mask.action == "redact":
        return _redact(value)
    if mask.action == "replace":
        return [mask.value] if isinstance(value, list) else mask.value
    if mask.action == "year":
        return _year(value)
    if mask.action == "keep":
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                _keep(item, mask.value, always=frozenset())
        return value if isinstance(value, dict | list) else None
    return None


def _keep(node: dict[str, Any], listed: str, always: frozenset[str] = KEPT_ALWAYS) -> None:
    names = {name.strip() for name in listed.split(",")} | always
    for key in [key for key in node if key.lstrip("_") not in names]:
        del node[key]


def _holds_objects(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def _selected(item: Any, where: str) -> bool:
    """`system=…`: has this item the child with that value? `system!=…` is its opposite, also without that child."""
    if not isinstance(item, dict):
        return True  # undecidable: hide rather than show
    name, _, wanted = where.partition("=")
    found = _has(item, name.rstrip("!").split("."), wanted)
    return not found if name.endswith("!") else found


def _has(node: Any, segments: list[str], wanted: str) -> bool:
    if isinstance(node, list):
        return any(_has(item, segments, wanted) for item in node)
    if not segments:
        return str(node) == wanted
    return isinstance(node, dict) and segments[0] in node and _has(node[segments[0]], segments[1:], wanted)


def _redact(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _redact(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_redact(child) for child in value]
    return REDACTED if isinstance(value, str) else value


def _year(value: Any) -> Any:
    if isinstance(value, list):
        return [_year(item) for item in value]
    return value[:4] if isinstance(value, str) and value[:4].isdigit() else None


def _hide_displays(node: Any, kinds: set[str]) -> bool:
    """Remove `display` from references to people whose name is hidden."""
    changed = False
    if isinstance(node, list):
        for item in node:
            changed = _hide_displays(item, kinds) or changed
    elif isinstance(node, dict):
        if "display" in node and _refers(node, kinds):
            del node["display"]
            changed = True
        for key, child in node.items():
            if key != "contained" and isinstance(child, dict | list):
                changed = _hide_displays(child, kinds) or changed
    return changed


def _refers(node: dict[str, Any], kinds: set[str]) -> bool:
    reference = str(node.get("reference", ""))
    if node.get("type") in kinds or reference.startswith("#"):
        return True
    return any(part in kinds for part in reference.split("/"))


def _drop(node: dict[str, Any], name: str) -> None:
    node.pop(name, None)
    node.pop(f"_{name}", None)
