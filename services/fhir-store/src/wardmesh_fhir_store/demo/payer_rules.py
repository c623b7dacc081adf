"""What the demo's payers demand, as PlanDefinitions that an operator can change like any other resource."""

from __future__ import annotations

from wardmesh_fhir_store.coverage.catalogue import INFORMATION, PROGRAM
from wardmesh_fhir_store.demo.payer_forms import BASE, CPAP_FORM, MRI_FORM
from wardmesh_fhir_store.demo.people import Resource, demo_meta

CPT = "http://www.ama-assn.org/go/cpt"
# Both spellings are in use.
HCPCS = (
    "http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
    "https://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
)
_CONTEXT = "http://terminology.hl7.org/CodeSystem/usage-context-type"
_DOCUMENTATION = "documentation"


def payer_rules() -> list[Resource]:
    """One of each kind: needed with a form, not needed, depends, a device, and one payer that differs."""
    return [*_imaging_and_visits(), *_therapy(), _device()]


def _imaging_and_visits() -> list[Resource]:
    return [
        _rule(
            "pa-70551",
            "MRI of the brain",
            "Advanced imaging of the head is authorized before it is done.",
            [(CPT, code) for code in ("70551", "70552", "70553")],
            _information("auth-needed", "Advanced imaging needs prior authorization.", doc="clinical", form=MRI_FORM),
            criteria="New neurological findings, or headache of six weeks that treatment did not relieve.",
            documents=("Clinical notes of the last visit", "Report of earlier imaging, if there was any"),
        ),
        _rule(
            "pa-99213",
            "Office visit",
            "Visits of known patients are paid without asking.",
            [(CPT, code) for code in ("99212", "99213", "99214")],
            _information("no-auth", "Office visits need no prior authorization.", doc="no-doc"),
        ),
    ]


def _therapy() -> list[Resource]:
    plan_of_care = ("Plan of care with the number of visits",)
    later = "After twenty visits in a calendar year prior authorization is needed."
    always = "This payer authorizes therapy from the first visit on."
    return [
        _rule(
            "pa-97110",
            "Therapeutic exercise",
            "The first twenty visits of a calendar year are free, later ones are authorized.",
            [(CPT, "97110")],
            _information("conditional", later, info=("timeframe", "performer")),
            criteria="From the twenty-first visit of a calendar year on.",
            documents=plan_of_care,
        ),
        _rule(
            "pa-97110-cign1",
            "Therapeutic exercise (Cigna)",
            always,
            [(CPT, "97110")],
            _information("auth-needed", always, doc="clinical"),
            payer="Organization/CIGN1",
            documents=plan_of_care,
        ),
    ]


def _device() -> Resource:
    return _rule(
        "pa-e0601",
        "Device for positive airway pressure",
        "Devices for use at home are authorized on the ground of a sleep study.",
        [(system, "E0601") for system in HCPCS],
        _information("auth-needed", "Devices need prior authorization.", doc="clinical", form=CPAP_FORM),
        criteria="A sleep study of the last twelve months shows obstructive sleep apnea.",
        documents=("Report of the sleep study",),
    )


def _information(
    needed: str, reason: str, *, doc: str = "", info: tuple[str, ...] = (), form: str = ""
) -> list[Resource]:
    """The content of Da Vinci's coverage information, as the service will answer it."""
    covered = "conditional" if needed == "conditional" else "covered"
    found: list[Resource] = [
        {"url": "covered", "valueCode": covered},
        {"url": "pa-needed", "valueCode": needed},
        {"url": "reason", "valueCodeableConcept": {"text": reason}},
    ]
    found += [{"url": "doc-needed", "valueCode": doc}] if doc else []
    found += [{"url": "info-needed", "valueCode": word} for word in info]
    return found + ([{"url": "questionnaire", "valueCanonical": form}] if form else [])


def _rule(
    identity: str,
    title: str,
    description: str,
    codes: list[tuple[str, str]],
    information: list[Resource],
    *,
    criteria: str = "",
    documents: tuple[str, ...] = (),
    payer: str = "",
) -> Resource:
    concept = {"coding": [{"system": system, "code": code} for system, code in codes]}
    contexts: list[Resource] = [{"code": {"system": _CONTEXT, "code": "focus"}, "valueCodeableConcept": concept}]
    if payer:
        contexts.append({"code": {"system": _CONTEXT, "code": PROGRAM}, "valueReference": {"reference": payer}})
    action: Resource = {"title": title, "extension": [{"url": INFORMATION, "extension": information}]}
    action |= {"description": criteria} if criteria else {}
    action |= {"documentation": [{"type": _DOCUMENTATION, "display": each} for each in documents]} if documents else {}
    return {
        "resourceType": "PlanDefinition",
        "id": identity,
        "meta": demo_meta(),
        "url": f"{BASE}/PlanDefinition/{identity}",
        "version": "1.0.0",
        "name": "".join(word.capitalize() for word in identity.split("-")),
        "title": title,
        "status": "active",
        "date": "2024-01-01",
        "description": description,
        "useContext": contexts,
        "effectivePeriod": {"start": "2024-01-01"},
        "action": [action],
    }
