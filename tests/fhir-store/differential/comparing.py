"""What differs between two sides, and whether it is exactly what the list of differences says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exchange import Answer, Side
from script import read, seed, steps

# step -> field -> what the store said, what the other side said
Differences = dict[str, dict[str, list[Any]]]
RIGHT = {"store", "other", "both", "neither"}


@dataclass(frozen=True)
class Reason:
    """One explanation for differences of one kind; `right` names who follows the specification."""

    title: str
    right: str
    specification: str
    because: str
    differs: Differences


def reasons(path: Path) -> list[Reason]:
    return [Reason(**row) for row in read(path)]


def listed(known: list[Reason]) -> Differences:
    every: Differences = {}
    for reason in known:
        for step, fields in reason.differs.items():
            for field, pair in fields.items():
                assert field not in every.setdefault(step, {}), f"{step}: {field} is listed twice"
                every[step][field] = pair
    return every


def difference(ours: Answer, other: Answer) -> dict[str, list[Any]]:
    """Of an answer with another status only the status is told: the rest follows from it."""
    if ours["status"] != other["status"] and max(ours["status"], other["status"]) >= 300:
        return {"status": [ours["status"], other["status"]]}
    fields = [*ours, *(field for field in other if field not in ours)]
    return {field: [ours.get(field), other.get(field)] for field in fields if ours.get(field) != other.get(field)}


def compare(store: Side, other: Side) -> Differences:
    resources = seed()
    store.plant(resources)
    other.plant(resources)
    every: Differences = {}
    for step in steps():
        found = difference(store.perform(step), other.perform(step))
        if found:
            every[step.name] = found
    return every


def without(every: Differences, known: Differences) -> Differences:
    """The differences that `known` does not hold with the same values."""
    left: Differences = {}
    for step, fields in every.items():
        rest = {field: pair for field, pair in fields.items() if known.get(step, {}).get(field) != pair}
        if rest:
            left[step] = rest
    return left


def shown(every: Differences) -> str:
    """As it stands in a list of differences, ready to be explained there."""
    lines: list[str] = []
    for step, fields in every.items():
        pairs = ", ".join(f"{json.dumps(field)}: {json.dumps(pair)}" for field, pair in fields.items())
        lines.append(f"    {step}: {{{pairs}}}")
    return "\n".join(lines)
