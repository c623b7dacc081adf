"""Documents in which every element that a role must not see holds a marker of its own."""

from __future__ import annotations

import copy
from typing import Any

SSN = "http://hl7.org/fhir/sid/us-ssn"
REFERENCE = {"reference": "Patient/p1", "identifier": {"system": SSN, "value": "HIDDEN-reference-ssn"}}

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "text": {"status": "generated", "div": "<div>HIDDEN-narrative</div>"},
    "extension": [{"url": "birthPlace", "valueAddress": {"city": "HIDDEN-extension"}}],
    "photo": [{"url": "HIDDEN-photo"}],
    "name": [{"family": "Doe", "given": ["Jane"]}],
    "gender": "female",
    "birthDate": "1980-02-03",
    "identifier": [
        {"system": SSN, "value": "HIDDEN-ssn", "assigner": {"display": "HIDDEN-assigner"}},
        {"system": "urn:mrn", "value": "HIDDEN-mrn"},
        {"value": "HIDDEN-no-system"},
    ],
    "telecom": [
        {"system": "phone", "value": "HIDDEN-phone", "extension": [{"url": "x", "valueString": "HIDDEN-dial"}]}
    ],
    "address": [
        {
            "text": "HIDDEN-text",
            "line": ["HIDDEN-line"],
            "city": "HIDDEN-city",
            "state": "HIDDEN-state",
            "postalCode": "HIDDEN-zip",
            "district": "HIDDEN-district",
        }
    ],
    "contact": [
        {
            "relationship": [{"text": "mother"}],
            "name": {"text": "HIDDEN-contact", "family": "HIDDEN-family", "given": ["HIDDEN-given"]},
            "telecom": [{"value": "HIDDEN-contact-phone"}],
            "address": {"city": "HIDDEN-contact-city"},
        }
    ],
}
COVERAGE: dict[str, Any] = {
    "resourceType": "Coverage",
    "id": "c1",
    "status": "active",
    "identifier": [{"value": "HIDDEN-coverage-id"}],
    "subscriberId": "HIDDEN-policy-number",
    "beneficiary": copy.deepcopy(REFERENCE),
    "payor": [{"display": "BlueCross"}],
    "class": [{"value": "HIDDEN-class"}],
    "policyHolder": {"display": "HIDDEN-holder"},
}
OTHERS: list[dict[str, Any]] = [
    {"resourceType": "RelatedPerson", "id": "r", "address": [{"city": "HIDDEN-relative"}], "patient": REFERENCE},
    {"resourceType": "Person", "id": "n", "address": [{"city": "HIDDEN-person"}]},
    {"resourceType": "Practitioner", "id": "d", "address": [{"city": "HIDDEN-colleague"}], "name": [{"family": "Roe"}]},
    {"resourceType": "DocumentReference", "id": "f", "content": [{"attachment": {"data": "HIDDEN-document"}}]},
    {"resourceType": "DiagnosticReport", "id": "g", "presentedForm": [{"data": "HIDDEN-report"}]},
    {"resourceType": "Binary", "id": "b", "contentType": "application/pdf", "data": "HIDDEN-content"},
    {"resourceType": "Observation", "id": "o", "subject": REFERENCE},
    {"resourceType": "Immunization", "id": "i", "patient": REFERENCE},
]


def documents() -> list[dict[str, Any]]:
    """Fresh copies; the patient also stands as a contained resource of another kind."""
    inside = {"resourceType": "Encounter", "id": "e", "contained": [copy.deepcopy(PATIENT)]}
    return [copy.deepcopy(PATIENT), copy.deepcopy(COVERAGE), inside, *copy.deepcopy(OTHERS)]
