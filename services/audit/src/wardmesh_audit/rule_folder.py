"""The rules in force: read at start and again whenever a file of the deployment changes; a bad one changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_audit.resting import RestingFiles
from wardmesh_audit.rules import AnyRule, BadRules, load_rules


class RuleReading(Struct, frozen=True):
    """What one reading gave."""

    rules: tuple[AnyRule, ...]
    digest: str
    facts: dict[str, Any]


class RuleFolder:
    """The rules that ship, with those of one folder over them, or without."""

    def __init__(self, folder: str | Path = "") -> None:
        self._folder = Path(folder) if folder else None
        self._files = RestingFiles(self._listed, partial(BadRules, "the directory of rules cannot be read"))
        self.reading = reading_of(())

    @property
    def watched(self) -> bool:
        return self._folder is not None

    def load(self) -> None:
        """Takes over what is there now. Raises BadRules."""
        marks = self._files.marks()
        self.reading = reading_of(load_rules(self._folder or ""))
        self._files.take(marks)

    def look(self) -> None:
        """Takes other files over once they rest. Raises BadRules, once."""
        if self._files.changed():
            self.reading = reading_of(load_rules(self._folder or ""))

    def _listed(self) -> Sequence[Path]:
        return sorted(self._folder.glob("*.json")) if self._folder is not None else []


def reading_of(rules: Sequence[AnyRule]) -> RuleReading:
    """The digest is that of what the rules say, not of how their files are written."""
    digest = hashlib.sha256(msgspec.json.encode(list(rules), order="sorted")).hexdigest()
    enabled = sum(rule.enabled for rule in rules)
    facts = {"digest": digest[:16], "rules": len(rules), "enabled": enabled}
    return RuleReading(tuple(rules), digest, facts)
