"""Whose data a resource holds: the R4 patient compartment, as element paths per type."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import msgspec
from msgspec import Struct

from wardmesh_fhir_proxy.links import Address


class Membership(Struct, frozen=True):
    """How one type belongs to a patient: where its references stand, and the search parameter that narrows to one."""

    paths: tuple[tuple[str, ...], ...]
    filter: str


def _load() -> dict[str, Membership]:
    text = (resources.files("wardmesh_fhir_proxy") / "data" / "patient_compartment.json").read_text("utf-8")
    return {
        kind: Membership(tuple(tuple(path.split(".")) for path in row["paths"]), row["filter"])
        for kind, row in json.loads(text)["types"].items()
    }


PATIENT_COMPARTMENT = _load()

# Types that describe no patient at all. Everything else outside the compartment is kept back from a caller who is
# limited to one patient, also when it holds patient references R4 left out (Device.patient, Task.for, Binary).
SHARED = frozenset(
    {
        "ActivityDefinition",
        "CapabilityStatement",
        "CodeSystem",
        "ConceptMap",
        "Endpoint",
        "HealthcareService",
        "InsurancePlan",
        "Library",
        "Location",
        "Measure",
        "Medication",
        "MedicationKnowledge",
        "NamingSystem",
        "OperationDefinition",
        "OperationOutcome",
        "Organization",
        "OrganizationAffiliation",
        "PlanDefinition",
        "Practitioner",
        "PractitionerRole",
        "Questionnaire",
        "SearchParameter",
        "StructureDefinition",
        "Substance",
        "ValueSet",
    }
)

_TOPS = sorted({path[0] for row in PATIENT_COMPARTMENT.values() for path in row.paths})


BINARY = "Binary"


class Contained(Struct):
    resourceType: str = ""  # noqa: N815 - FHIR's name
    id: str = ""


# One Struct with every element a compartment path starts with: one pass over the bytes finds type, id and references.
Peek = msgspec.defstruct(
    "Peek",
    [
        ("resourceType", str, ""),
        ("id", str, ""),
        ("contained", list[Contained], msgspec.field(default_factory=list)),
        ("contentType", Any, None),
        ("securityContext", Any, None),
        *((name, Any, None) for name in _TOPS),
    ],
)
_peeks = msgspec.json.Decoder(Peek)


def peek(resource: bytes | msgspec.Raw) -> Any:
    """Type, id, contained types and compartment elements; raises msgspec.ValidationError on a malformed resource."""
    return _peeks.decode(resource)


def patients_of(seen: Any, address: Address) -> tuple[str, ...]:
    """Ids of the patients whose compartment this resource is in (`seen` is a Peek)."""
    if seen.resourceType == "Patient":
        # Another person's Patient that merely links to this one is that person's, not this one's (SM-7).
        return (seen.id,) if seen.id else ()
    if seen.resourceType == BINARY:
        kind, identity = context_of(seen, address) or ("", "")
        return (identity,) if kind == "Patient" else ()
    row = PATIENT_COMPARTMENT.get(seen.resourceType)
    if row is None:
        return ()
    found: dict[str, None] = {}
    for path in row.paths:
        _collect(getattr(seen, path[0]), path[1:], address, found)
    return tuple(found)


def _collect(value: Any, rest: tuple[str, ...], address: Address, found: dict[str, None]) -> None:
    if isinstance(value, list):
        for item in value:
            _collect(item, rest, address, found)
    elif isinstance(value, dict):
        if rest:
            _collect(value.get(rest[0]), rest[1:], address, found)
        else:
            patient = patient_id(value.get("reference"), address)
            if patient:
                found[patient] = None


def patient_id(reference: Any, address: Address) -> str:
    """`Patient/1`, versioned or absolute under this platform's base -> `1`; anything else -> ""."""
    kind, identity = _target(reference, address)
    return identity if kind == "Patient" else ""


def context_of(seen: Any, address: Address) -> tuple[str, str] | None:
    """Type and id of what stands in for a Binary (R4 `securityContext`); None without one.

    What names nothing at this platform is ("", ""): nobody can say who may read that.
    """
    if seen.securityContext is None:
        return None
    context = seen.securityContext
    return _target(context.get("reference") if isinstance(context, dict) else None, address)


def _target(reference: Any, address: Address) -> tuple[str, str]:
    if not isinstance(reference, str):
        return "", ""
    suffix = address.suffix(reference) if "://" in reference else reference
    parts = suffix.split("/") if suffix else []
    plain = len(parts) == 2 or (len(parts) == 4 and parts[2] == "_history")
    return (parts[0], parts[1]) if plain else ("", "")
