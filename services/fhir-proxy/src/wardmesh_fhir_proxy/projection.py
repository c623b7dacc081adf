"""A resource as a model can use it: noise dropped, codes readable, bounded in size and honest about it (B-1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wardmesh_fhir_proxy import json_exact

META_KEPT = frozenset({"versionId", "lastUpdated", "security", "tag"})
GENERATED = frozenset({"generated", "extensions", "empty"})
LONG_TEXT = 200
MEASURES_TRIED = 400


def project(resource: dict[str, Any]) -> dict[str, Any]:
    """Change in place: no generated narrative, little meta, every coding with a display where a text is known."""
    text = resource.get("text")
    # Narrative that says more than the elements ("additional") is content and stays.
    if isinstance(text, dict) and text.get("status") in GENERATED:
        del resource["text"]
    meta = resource.get("meta")
    if isinstance(meta, dict):
        kept = {key: value for key, value in meta.items() if key in META_KEPT}
        resource["meta"] = kept
        if not kept:
            del resource["meta"]
    for contained in resource.get("contained") or []:
        if isinstance(contained, dict):
            project(contained)
    _fill_displays(resource)
    return resource


def _fill_displays(node: Any) -> None:
    if isinstance(node, list):
        for item in node:
            _fill_displays(item)
    elif isinstance(node, dict):
        text, codings = node.get("text"), node.get("coding")
        if isinstance(text, str) and isinstance(codings, list):
            for coding in codings:
                if isinstance(coding, dict) and "code" in coding:
                    coding.setdefault("display", text)
        for child in node.values():
            if isinstance(child, dict | list):
                _fill_displays(child)


LeftOut = dict[str, tuple[int, str]]  # path -> how many of what


def told(left_out: LeftOut) -> list[str]:
    """What was left out, one line each."""
    return [f"{path}: {count} {what} left out" for path, (count, what) in left_out.items()]


def shrink(resource: dict[str, Any], budget: int, left_out: LeftOut) -> None:
    """Cut in place until the JSON fits `budget`, and add what is missing to `left_out`.

    The largest list or text goes first, lists from their end, so the most of the resource stays.
    """
    for _ in range(MEASURES_TRIED):
        excess = len(json_exact.encode(resource)) - budget
        if excess <= 0:
            break
        found = max(_parts(resource, ""), key=lambda part: part[0], default=None)
        if found is None:
            break
        _, path, parent, key = found
        _cut(path, parent, key, excess, left_out)


def _parts(node: Any, path: str) -> Iterator[tuple[int, str, Any, Any]]:
    """(size, path, parent, key) of every list and long text that may be cut."""
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in children:
        where = f"{path}[{key}]" if isinstance(node, list) else f"{path}.{key}".lstrip(".")
        if isinstance(child, list) and child:
            yield len(json_exact.encode(child)), where, node, key
        elif isinstance(child, str) and len(child) > LONG_TEXT and key != "resourceType":
            yield len(child.encode()), where, node, key
        if isinstance(child, dict | list):
            yield from _parts(child, where)


def _cut(path: str, parent: Any, key: Any, excess: int, left_out: LeftOut) -> None:
    child = parent[key]
    earlier = left_out.get(path, (0, ""))[0]
    if isinstance(child, str):
        left_out[path] = (earlier + len(child), "characters")
        parent[key] = ""
        if isinstance(parent, dict):
            del parent[key]
        return
    freed = 0
    count = 0
    while child and freed < excess:
        freed += len(json_exact.encode(child.pop())) + 1
        count += 1
    left_out[path] = (earlier + count, "items")
    if not child and isinstance(parent, dict):
        del parent[key]
