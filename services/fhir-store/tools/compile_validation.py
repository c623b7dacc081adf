"""Compile invariants of R4 and the profiles of US Core into the compact extracts that $validate evaluates.

Usage:  python compile_validation.py package/dist/fhir/r4 us_core_610.tgz us_core_700.tgz
Only what can change a verdict is kept: an element that a profile leaves as the base has it is dropped.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

from compile_definitions import DROPPED, OUTPUT, Terminology, resources

BASE = "http://hl7.org/fhir/StructureDefinition/"
COVERED = {"ele-1"}  # an element without content is refused structurally
KEPT_BINDINGS = {"required", "extensible"}


def invariants(definitions: list[dict[str, Any]]) -> dict[str, list[list[str]]]:
    """Element path → constraints as [key, severity, human, expression]; each where it is defined."""
    found: dict[str, list[list[str]]] = {}
    for item in definitions:
        for element in item["snapshot"]["element"]:
            for rule in element.get("constraint", []):
                source = rule.get("source", item["url"])
                if rule["key"] in COVERED or not rule.get("expression"):
                    continue
                if source == item["url"]:
                    path = element["path"]
                elif source == f"{BASE}DomainResource" and element["path"] == item["type"]:
                    path = "DomainResource"
                else:
                    continue
                entry = [rule["key"], rule["severity"], rule["human"], rule["expression"]]
                if entry not in found.setdefault(path, []):
                    found[path].append(entry)
    return {path: rules for path, rules in sorted(found.items()) if rules}


def value_of(element: dict[str, Any], stem: str) -> Any:
    return next((value for name, value in element.items() if name.startswith(stem)), None)


def compile_element(element: dict[str, Any], terms: Terminology) -> dict[str, Any]:
    """What the profile adds to the base; empty when nothing."""
    base = element.get("base", {"min": 0, "max": "*"})
    sliced = ":" in element["id"].rsplit(".", 1)[-1]
    made: dict[str, Any] = {}
    if element["min"] != base["min"] or (sliced and element["min"]):
        made["min"] = element["min"]
    if element["max"] != base["max"] or (sliced and element["max"] != "*"):
        made["max"] = element["max"]
    for stem in ("fixed", "pattern"):
        value = value_of(element, stem)
        if value is not None:
            made[stem] = value
    if "slicing" in element:
        parts = [[d["type"], d["path"]] for d in element["slicing"].get("discriminator", [])]
        made["slicing"] = {"by": parts, "rules": element["slicing"].get("rules", "open")}
    if element.get("mustSupport"):
        made["must"] = True
    kinds = element.get("type", [])
    if element["path"].endswith("[x]") or sliced:
        made["types"] = [kind["code"].rsplit("/", 1)[-1] for kind in kinds]
    profiles = [p for kind in kinds for p in kind.get("profile", []) if not p.startswith(BASE)]
    if profiles:
        made["profile"] = profiles[0]
    binding = element.get("binding", {})
    if binding.get("strength") in KEPT_BINDINGS and not binding.get("valueSet", "").startswith("http://hl7.org/fhir/"):
        codes = terms.codes(binding.get("valueSet", "").split("|")[0], 0)
        listed = sorted(f"{s}|{c}" for s, c in codes) if codes and binding["strength"] == "required" else []
        made["binding"] = {"strength": binding["strength"], "set": binding.get("valueSet", ""), "codes": listed}
    rules = [r for r in element.get("constraint", []) if r.get("expression") and not _of_base(r)]
    if rules:
        made["rules"] = [[r["key"], r["severity"], r["human"], r["expression"]] for r in rules]
    return {} if set(made) == {"types"} and not sliced else made


def _of_base(rule: dict[str, Any]) -> bool:
    return rule.get("source", "").startswith(BASE) or rule["key"].startswith(("ele-", "ext-", "dom-"))


def package(path: Path, base: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Version and profiles of one package."""
    with tarfile.open(path) as archive:
        names = [n for n in archive.getnames() if n.startswith("package/") and n.count("/") == 1]
        items = [json.load(archive.extractfile(n)) for n in sorted(names) if n.endswith(".json")]  # type: ignore[arg-type]
    found = [item for item in items if item.get("resourceType") == "StructureDefinition"]
    terms = Terminology([*base, *(i for i in items if i.get("resourceType") in ("CodeSystem", "ValueSet"))])
    profiles: dict[str, Any] = {}
    for item in found:
        elements = {e["id"]: compile_element(e, terms) for e in item["snapshot"]["element"]}
        kept = {identity: made for identity, made in elements.items() if made}
        profiles[item["url"]] = {"type": item["type"], "elements": kept}
    version = next(item["version"] for item in found)
    return version, profiles


def write(name: str, content: dict[str, Any]) -> None:
    path = OUTPUT.parent / name
    path.write_text(json.dumps(content, sort_keys=True, indent=0, separators=(",", ":")) + "\n", "utf-8")
    print(f"{name}: {path.stat().st_size} bytes")  # noqa: T201


def main(folder: Path, packages: list[Path]) -> None:
    """Write both extracts."""
    kinds = resources(folder, "profiles-resources.json") + resources(folder, "profiles-types.json")
    structures = [
        i for i in kinds if i["resourceType"] == "StructureDefinition" and i["type"] not in DROPPED and "snapshot" in i
    ]
    write("invariants.json", {"rules": invariants([i for i in structures if i.get("derivation") != "constraint"])})
    base = resources(folder, "valuesets.json") + resources(folder, "v3-codesystems.json")
    compiled = dict(package(path, base) for path in packages)
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in packages}
    write("us_core.json", {"package": "hl7.fhir.us.core", "sources_sha256": hashes, "versions": compiled})


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
