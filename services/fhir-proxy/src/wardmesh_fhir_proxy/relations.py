"""How the caller stands to a patient, as far as an answer itself shows it: for the record, never a ground to allow."""

from __future__ import annotations

from typing import Final

from msgspec import Raw

from wardmesh_common.contracts import Call

OWN: Final = "PATRQT"
# A resource about a patient that names the caller makes this relationship. Kinds that name whoever looked at or filed
# something (AuditEvent, Provenance, Communication) make none.
_SHOWN_BY: Final = {
    "Patient": "general-practitioner",
    "CareTeam": "care-team",
    "EpisodeOfCare": "care-team",
    "CarePlan": "care-team",
    "Encounter": "encounter",
    "Appointment": "appointment",
    **dict.fromkeys(
        ("Condition", "DiagnosticReport", "Immunization", "MedicationAdministration", "MedicationRequest"), "treating"
    ),
    **dict.fromkeys(("Observation", "Procedure", "ServiceRequest", "ClinicalImpression"), "treating"),
}


class Relations:
    """Of one caller to the patients of one answer. What it cannot see is "", which is not the same as none."""

    def __init__(self, call: Call) -> None:
        decision = call.decision
        self._own = decision.obligations.compartment if decision and decision.purpose == OWN else ""
        self._launched = call.grant.patient if call.grant else ""
        name = decision.known_as if decision else ""
        self._name = name.encode()
        self._names = (f'"{name}"'.encode(), f'/{name}"'.encode(), f'"{name}/'.encode()) if name else ()

    def to(self, patient: str, kind: str, resource: Raw | bytes) -> str:
        """The references are looked for as text: a reference stands in quotes wherever the kind keeps it."""
        if not patient:
            return ""
        if patient == self._own:
            return "self"
        if patient == self._launched:
            return "launch"
        shown = _SHOWN_BY.get(kind, "") if self._names else ""
        return shown if shown and self._named_in(bytes(resource)) else ""

    def _named_in(self, text: bytes) -> bool:
        """Most resources do not hold the name at all: one look tells."""
        return self._name in text and any(name in text for name in self._names)
