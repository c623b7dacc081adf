"""Walks the typed paths of the extract through a decoded resource."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

Step = tuple[str, str, str]  # member, and a filter `{key=value}` on it

_STEP = re.compile(r"(\w+)(?:\{(\w+)=([^}]*)\})?")


@lru_cache(maxsize=8192)
def steps_of(path: str) -> tuple[Step, ...]:
    """`telecom{system=phone}.value` as steps."""
    return tuple((m[1], m[2] or "", m[3] or "") for m in _STEP.finditer(path))


def walk(node: Any, steps: tuple[Step, ...], at: int = 0) -> Iterator[Any]:
    """Every value at the path; lists are walked through, shapes that do not fit are skipped."""
    if isinstance(node, list):
        for item in node:
            yield from walk(item, steps, at)
        return
    if at == len(steps):
        if node is not None:
            yield node
        return
    if not isinstance(node, dict):
        return
    name, key, wanted = steps[at]
    child = node.get(name)
    if child is None:
        return
    if key:
        items = child if isinstance(child, list) else [child]
        child = [item for item in items if isinstance(item, dict) and item.get(key) == wanted]
    yield from walk(child, steps, at + 1)
