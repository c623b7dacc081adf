"""The compiled paths against fhirpathpy over the definitions' own expressions, resource by resource."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fhirpathpy
import pytest
from fhirpathpy.models import models
from store_stage import NODE_MODULES, SYNTHEA

from wardmesh_fhir_store.definitions import Parameter, load_definitions
from wardmesh_fhir_store.demo.hospital import demo_resources
from wardmesh_fhir_store.paths import steps_of, walk
from wardmesh_fhir_store.references import target_of

FOLDER = NODE_MODULES / "@medplum" / "definitions" / "dist" / "fhir" / "r4"
DEFINITIONS = load_definitions()
RESOLVED = re.compile(r"\.where\(resolve\(\) is (\w+)\)")
OF_EACH = 6  # resources of a type that are looked at


def resources() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    extra = [entry["resource"] for file in sorted(SYNTHEA.glob("*.json"))[:3] for entry in _entries(file)]
    for one in (*demo_resources(datetime(2026, 1, 2, tzinfo=UTC), 12), *extra):
        rows = found.setdefault(one["resourceType"], [])
        if len(rows) < OF_EACH:
            rows.append(one)
    return found


def _entries(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_bytes())["entry"]


def branches(expression: str, kind: str) -> list[str]:
    """The parts of a union that begin with the type."""
    depth, start, parts = 0, 0, list[str]()
    for position, letter in enumerate(expression + "|"):
        depth += (letter == "(") - (letter == ")")
        if letter == "|" and depth == 0:
            parts.append(expression[start:position].strip())
            start = position + 1
    return [part for part in parts if re.match(rf"\(*{kind}\b", part)]


def theirs(expression: str, row: dict[str, Any]) -> list[Any]:
    found: list[Any] = []
    for part in branches(expression, row["resourceType"]):
        wanted = RESOLVED.search(part)
        values = fhirpathpy.compile(RESOLVED.sub("", part), model=models["r4"])(row, {})
        found += [value for value in values if not wanted or _aims(value, wanted[1])]
    return found


def _aims(value: Any, kind: str) -> bool:
    target = target_of(str(value.get("reference", "")), ()) if isinstance(value, dict) else None
    return (target.type if target and target.type else value.get("type")) == kind


def ours(parameter: Parameter, row: dict[str, Any]) -> list[Any]:
    found: list[Any] = []
    for branch in parameter.branches:
        if branch.kind == "presence":
            found.append(any(name in row for name in ("deceasedBoolean", "deceasedDateTime")))
            continue
        resolved = branch.kind == "Reference" and branch.detail
        found += [v for v in walk(row, steps_of(branch.path)) if not resolved or _aims(v, branch.detail)]
    return found


def counted(values: list[Any]) -> Counter[str]:
    """The engine gives numbers back as Decimals."""
    plain = json.loads(json.dumps(values, default=str), parse_float=str, parse_int=str)
    return Counter(json.dumps(value, sort_keys=True) for value in plain)


@pytest.mark.skipif(not FOLDER.exists(), reason="the npm packages are not installed: make setup")
def test_paths_find_what_the_definitions_expressions_find() -> None:
    """`deceased` is compared as presence only: its expression also looks at the value (see indexing.py)."""
    compared = 0
    rows = resources()
    for entry in json.loads((FOLDER / "search-parameters.json").read_bytes())["entry"]:
        item = entry["resource"]
        for kind in item["base"]:
            parameter = DEFINITIONS.parameters.get(kind, {}).get(item["code"])
            if parameter is None or item["code"] == "deceased" or not item.get("expression"):
                continue
            for row in rows.get(kind, []):
                mine, other = ours(parameter, row), theirs(item["expression"], row)
                assert counted(mine) == counted(other), (kind, item["code"], item["expression"])
                compared += bool(mine)
    assert compared > 500
