"""Forms that the demo's payers want filled in, with the value set and the library that one of them names."""

from __future__ import annotations

from base64 import b64encode

from wardmesh_fhir_store.demo.people import Resource, demo_meta

BASE = "http://payer.example.org/fhir"
MRI_FORM = f"{BASE}/Questionnaire/mri-brain"
CPAP_FORM = f"{BASE}/Questionnaire/cpap"
REASONS = f"{BASE}/ValueSet/mri-brain-reasons"
_LIBRARY = f"{BASE}/Library/mri-brain"
_CQF_LIBRARY = "http://hl7.org/fhir/StructureDefinition/cqf-library"
_LOGIC = "http://terminology.hl7.org/CodeSystem/library-type"
_SNOMED = "http://snomed.info/sct"
_CQL = """library MriBrain version '1.0.0'
using FHIR version '4.0.1'
context Patient
define "Earlier imaging": [ImagingStudy]
"""


def payer_forms() -> list[Resource]:
    return [_reasons(), _library(), _mri(), _cpap()]


def _published(kind: str, identity: str, url: str, title: str) -> Resource:
    name = "".join(word.capitalize() for word in identity.split("-"))
    about = {"url": url, "version": "1.0.0", "name": name, "title": title, "status": "active", "date": "2024-01-01"}
    return {"resourceType": kind, "id": identity, "meta": demo_meta(), **about}


def _mri() -> Resource:
    return {
        **_published("Questionnaire", "mri-brain", MRI_FORM, "MRI of the brain: reasons and earlier findings"),
        "extension": [{"url": _CQF_LIBRARY, "valueCanonical": f"{_LIBRARY}|1.0.0"}],
        "description": "What a payer wants to know before it authorizes an MRI of the brain.",
        "subjectType": ["Patient"],
        "item": [
            {
                "linkId": "why",
                "text": "Why the examination is needed",
                "type": "group",
                "item": [
                    {
                        "linkId": "why.reason",
                        "text": "Main reason",
                        "type": "choice",
                        "required": True,
                        "answerValueSet": REASONS,
                    },
                    {"linkId": "why.weeks", "text": "Weeks since it began", "type": "integer", "required": True},
                    {"linkId": "why.notes", "text": "Clinical notes", "type": "text", "maxLength": 2000},
                ],
            },
            {"linkId": "earlier", "text": "Was the head imaged before?", "type": "boolean", "required": True},
            {
                "linkId": "earlier.date",
                "text": "When was the last imaging?",
                "type": "date",
                "required": True,
                "enableWhen": [{"question": "earlier", "operator": "=", "answerBoolean": True}],
            },
        ],
    }


def _cpap() -> Resource:
    hours = [{"valueString": "less than 4 hours"}, {"valueString": "4 hours or more"}]
    return {
        **_published("Questionnaire", "cpap", CPAP_FORM, "Positive airway pressure: sleep study"),
        "description": "What a payer wants to know before it authorizes a device for positive airway pressure.",
        "subjectType": ["Patient"],
        "item": [
            {"linkId": "study", "text": "Date of the sleep study", "type": "date", "required": True},
            {"linkId": "ahi", "text": "Apnea-hypopnea index", "type": "decimal", "required": True},
            {
                "linkId": "use",
                "text": "Nightly use during the trial",
                "type": "choice",
                "answerOption": hours,
            },
        ],
    }


def _reasons() -> Resource:
    concepts = [
        {"code": "25064002", "display": "Headache"},
        {"code": "91175000", "display": "Seizure"},
        {"code": "26544005", "display": "Muscle weakness"},
    ]
    return {
        **_published("ValueSet", "mri-brain-reasons", REASONS, "Reasons for an MRI of the brain"),
        "compose": {"include": [{"system": _SNOMED, "concept": concepts}]},
    }


def _library() -> Resource:
    return {
        **_published("Library", "mri-brain", _LIBRARY, "Answers that the record holds already"),
        "type": {"coding": [{"system": _LOGIC, "code": "logic-library"}]},
        "content": [{"contentType": "text/cql", "data": b64encode(_CQL.encode()).decode()}],
    }
