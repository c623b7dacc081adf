"""Walks the typed paths of the extract through a decoded resource."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

Step = tuple[str, str, str]  # member, and a filter `{key=value}` on it

_STEP = re.compile(r"(\w+)(?:\{(\w+)=([^}]*)\})?")


@lru_cache(maxsize=8192)
def steps_of(path: str) -> tuple[Step, ...]:
    """`telecom{system=phone}.value` as steps."""
    return tuple((m[1], m[2] or "", m[3] or "") for m in _STEP.finditer(path))


def walk(node: Any, steps: tuple[Step, ...]) -> list[Any]:
    """Every value at the path; lists are walked through, shapes that do not fit are skipped."""
    found = _flat(node)
    for name, key, wanted in steps:
        following: list[Any] = []
        for one in found:
            child = one.get(name) if isinstance(one, dict) else None
            if child is not None:
                following += _flat(child)
        if key:
            following = [one for one in following if isinstance(one, dict) and one.get(key) == wanted]
        if not following:
            return following
        found = following
    return found


def _flat(node: Any) -> list[Any]:
    """The items of a list, of lists in it, or the node itself; without nulls."""
    if not isinstance(node, list):
        return [] if node is None else [node]
    return [one for item in node for one in _flat(item)]
