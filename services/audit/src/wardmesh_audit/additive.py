"""Compares a contract with a released one: only additions are allowed, for what is published and for what is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_TEXT = frozenset({"description", "title", "$schema", "examples", "summary"})


def breaking_changes(old: Any, new: Any, path: str = "") -> list[str]:
    """Where the new contract is not an addition to the old one, as paths. Empty: it is one.

    A consumer that was written for the old contract must find what it relied on; an event that was stored under the
    old contract must still be valid. So nothing may go away, become another, become required or cease to be.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        return _objects(old, new, path)
    if isinstance(old, list) and isinstance(new, list):
        return _lists(old, new, path)
    return [] if old == new and type(old) is type(new) else [path]


def _objects(old: dict[str, Any], new: dict[str, Any], path: str) -> list[str]:
    found: list[str] = []
    for name, value in old.items():
        here = f"{path}/{name}"
        if name in _TEXT and isinstance(value, str):
            continue
        found += breaking_changes(value, new[name], here) if name in new else [here]
    closed = path.rsplit("/", 1)[-1] not in ("properties", "schemas", "channels", "headers", "patternProperties", "")
    for name in new.keys() - old.keys() - _TEXT:
        if closed:  # a keyword that was not there before: a constraint
            found.append(f"{path}/{name}")
    return found


def _lists(old: list[Any], new: list[Any], path: str) -> list[str]:
    if path.endswith("/enum"):
        return [] if all(value in new for value in old) else [path]
    return [] if old == new else [path]


def released(folder: Path) -> dict[str, dict[str, Any]]:
    """Every released contract: version -> contract."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
