"""Official R4 examples, Synthea and US Core: each is judged, and what is refused is known by name (§2.3, §3)."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from store_stage import NODE_MODULES, SYNTHEA

from wardmesh_fhir_store.definitions import load_definitions
from wardmesh_fhir_store.definitions.rules import load_profiles, load_rules
from wardmesh_fhir_store.elements import Elements
from wardmesh_fhir_store.faults import Issue
from wardmesh_fhir_store.invariants import Invariants
from wardmesh_fhir_store.jsontext import decode
from wardmesh_fhir_store.profiling import ProfileChecker
from wardmesh_fhir_store.validation import Validator

EXAMPLES = NODE_MODULES / "hl7.fhir.r4.examples"
US_CORE = SYNTHEA.parent / "us_core"
DEFINITIONS = load_definitions()
ELEMENTS = Elements(DEFINITIONS)
VALIDATOR = Validator(DEFINITIONS)
# Faults of the examples themselves: references to types that the element does not allow, missing required elements.
FAULTY = {
    "DeviceMetric-example", "DeviceUseStatement-example", "ImplementationGuide-fhir", "MedicationRequest-medrx0301",
    "Observation-clinical-gender", "Questionnaire-qs1", "ig-r4",
    "SearchParameter-codesystem-extensions-CodeSystem-author",
    "SearchParameter-codesystem-extensions-CodeSystem-effective",
    "SearchParameter-codesystem-extensions-CodeSystem-end",
    "SearchParameter-codesystem-extensions-CodeSystem-keyword",
    "SearchParameter-codesystem-extensions-CodeSystem-workflow",
    "SearchParameter-questionnaireresponse-extensions-QuestionnaireResponse-item-subject",
    "SearchParameter-valueset-extensions-ValueSet-author",
    "SearchParameter-valueset-extensions-ValueSet-effective",
    "SearchParameter-valueset-extensions-ValueSet-end",
    "SearchParameter-valueset-extensions-ValueSet-keyword",
    "SearchParameter-valueset-extensions-ValueSet-workflow",
}  # fmt: skip


def packed(archive: Path, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    with tarfile.open(archive) as opened:
        for member in opened:
            path = Path(member.name)
            if path.parent == Path(folder) and path.suffix == ".json":
                content = opened.extractfile(member)
                assert content is not None
                tree = decode(content.read())
                if isinstance(tree, dict) and "resourceType" in tree:
                    yield path.stem, tree


def errors(issues: list[Issue]) -> list[tuple[str, object]]:
    return [(issue.diagnostics, issue.expression) for issue in issues if issue.severity == "error"]


@pytest.mark.skipif(not EXAMPLES.exists(), reason="the npm packages are not installed: make setup")
def test_of_the_official_examples_only_the_faulty_ones_are_refused() -> None:
    judged, refused = 0, set[str]()
    for file in EXAMPLES.glob("*.json"):
        tree = decode(file.read_bytes())
        if "resourceType" in tree:
            judged += 1
            if VALIDATOR.issues(tree):
                refused.add(file.stem)
    assert (judged, refused) == (5306, FAULTY)


@pytest.mark.skipif(not list(US_CORE.glob("*.tgz")), reason="no US Core packages beside WARDMESH_TEST_SYNTHEA")
@pytest.mark.parametrize(("file", "version"), [("us_core_610", "6.1.0"), ("us_core_700", "7.0.0")])
def test_every_us_core_example_is_judged_good_and_at_its_profiles(file: str, version: str) -> None:
    checker, profiles = ProfileChecker(ELEMENTS, load_profiles()), load_profiles()
    invariants = Invariants(ELEMENTS, load_rules())
    judged = 0
    for number, (name, tree) in enumerate(packed(US_CORE / f"{file}.tgz", "package/example")):
        assert errors(VALIDATOR.issues(tree)) == [], name
        if number % 8 == 0:  # the engine needs milliseconds for each
            assert errors(invariants.judge(tree).issues) == [], name
        for canonical in tree.get("meta", {}).get("profile", []):
            profile = profiles.find(f"{canonical.partition('|')[0]}|{version}")
            if profile is not None:
                judged += 1
                assert errors(checker.judge(tree, profile).verdict.issues) == [], (name, canonical)
    assert judged > 150


@pytest.mark.skipif(not list(SYNTHEA.glob("*.json")), reason="WARDMESH_TEST_SYNTHEA names no folder with Bundles")
def test_every_synthea_resource_is_judged_good() -> None:
    invariants = Invariants(ELEMENTS, load_rules())
    judged = 0
    for file in sorted(SYNTHEA.glob("*.json")):
        for number, entry in enumerate(json.loads(file.read_bytes())["entry"]):
            judged += 1
            tree = entry["resource"]
            assert errors(VALIDATOR.issues(tree)) == [], (file.name, number)
            if number % 40 == 0:
                assert errors(invariants.judge(tree).issues) == [], (file.name, number)
    assert judged > 2000


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"resourceType": "Patient", "gender": "x"}, "Patient.gender"),
    ({"resourceType": "Patient", "birthDate": "2024-13-01"}, "Patient.birthDate"),
    ({"resourceType": "Patient", "colour": "x"}, "Patient"),
    ({"resourceType": "Patient", "name": {"family": "x"}}, "Patient.name"),
    ({"resourceType": "Patient", "name": []}, "Patient.name"),
    ({"resourceType": "Patient", "active": "true"}, "Patient.active"),
    ({"resourceType": "Patient", "contact": [{}]}, "Patient.contact[0]"),
    ({"resourceType": "Patient", "deceasedBoolean": True, "deceasedDateTime": "2020"}, "Patient"),
    ({"resourceType": "Patient", "managingOrganization": {"reference": "Patient/x"}}, "Patient.managingOrganization"),
    ({"resourceType": "Patient", "id": "a b"}, "Patient.id"),
    ({"resourceType": "Patient", "link": [{"other": {"display": "x"}}]}, "Patient.link[0].type"),
    ({"resourceType": "Observation", "code": {"text": "x"}}, "Observation.status"),
    (
        {"resourceType": "Patient", "contained": [{"resourceType": "Device", "status": "?"}]},
        "Patient.contained[0].status",
    ),
    ({"resourceType": "Patient", "multipleBirthInteger": 1.5}, "Patient.multipleBirthInteger"),
]


@pytest.mark.parametrize(("tree", "where"), BROKEN)
def test_a_fault_is_located(tree: dict[str, Any], where: str) -> None:
    issues = VALIDATOR.issues(tree)
    assert issues
    assert any(str(issue.expression[0]).startswith(where) for issue in issues if issue.expression)
