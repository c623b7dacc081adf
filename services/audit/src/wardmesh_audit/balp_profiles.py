"""The rows of IHE BALP's mapping: per interaction the profile, the codes and who counts as source or destination."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

PROFILES: Final = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit."
DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
TERMS: Final = "http://terminology.hl7.org/CodeSystem/"
PARTICIPATION: Final = TERMS + "v3-ParticipationType"
REST: Final = "http://hl7.org/fhir/restful-interaction"
LIFECYCLE: Final = TERMS + "iso-21089-lifecycle"

Coding = dict[str, str]


def coding(system: str, code: str, display: str = "") -> Coding:
    return {"system": system, "code": code, "display": display} if display else {"system": system, "code": code}


SOURCE: Final = coding(DCM, "110153", "Source Role ID")
DESTINATION: Final = coding(DCM, "110152", "Destination Role ID")
APPLICATION: Final = coding(DCM, "110150", "Application")
CUSTODIAN: Final = coding(TERMS + "provenance-participant-type", "custodian", "Custodian")
RECIPIENT: Final = coding(PARTICIPATION, "IRCP", "information recipient")
AUTHOR: Final = coding(PARTICIPATION, "AUT", "author (originator)")
RESTFUL: Final = coding(TERMS + "audit-event-type", "rest", "Restful Operation")
EXPORT: Final = coding(DCM, "110106", "Export")
DISCLOSE: Final = coding(LIFECYCLE, "disclose", "Disclose Record Lifecycle Event")


class Row(Struct, frozen=True):
    """One row of the table. `profile` is the suffix without `Patient`; empty: no profile covers it."""

    profile: str
    action: str
    type: Coding
    subtype: Coding
    client: Coding
    server: Coding
    user: Coding


def _rest(profile: str, action: str, code: str, client: Coding, server: Coding, user: Coding) -> Row:
    return Row(profile, action, RESTFUL, coding(REST, code, code), client, server, user)


# The usual mistake: data flows from server to client in a read, but a query's parameters flow the other way.
READ: Final = _rest("Read", "R", "read", DESTINATION, SOURCE, RECIPIENT)
QUERY: Final = _rest("Query", "E", "search", SOURCE, DESTINATION, RECIPIENT)
CREATE: Final = _rest("Create", "C", "create", SOURCE, DESTINATION, AUTHOR)
UPDATE: Final = _rest("Update", "U", "update", SOURCE, DESTINATION, AUTHOR)
DELETE: Final = _rest("Delete", "D", "delete", APPLICATION, CUSTODIAN, AUTHOR)
DISCLOSURE: Final = Row("PrivacyDisclosure.Source", "R", EXPORT, DISCLOSE, DESTINATION, SOURCE, RECIPIENT)
OPERATION: Final = _rest("", "E", "operation", SOURCE, DESTINATION, RECIPIENT)

_BY_ACTION: Final = {"R": READ, "search": QUERY, "C": CREATE, "U": UPDATE, "D": DELETE, "export": DISCLOSURE}
_EXACT: Final = frozenset({"vread", "history", "patch", "batch", "transaction", "capabilities"})
_RECORDS: Final = frozenset({"access", "write", "search", "export", "disclosure", "break_glass"})


def _security(code: str, display: str, action: str) -> Row:
    """An event about security itself: DICOM has types for it, BALP no profile."""
    kind = coding(DCM, code, display)
    return Row("", action, kind, kind, SOURCE, DESTINATION, RECIPIENT)


_OTHERS: Final[dict[str, Row]] = {
    "login": _security("110114", "User Authentication", "E"),
    "audit_status": _security("110100", "Application Activity", "E"),
    "audit_read": _security("110101", "Audit Log Used", "R"),
}
_ALERT: Final = _security("110113", "Security Alert", "E")
EMERGENCY: Final = {
    "emergency_started": coding(DCM, "110127", "Emergency Override Started"),
    "emergency_stopped": coding(DCM, "110128", "Emergency Override Stopped"),
}


def row_of(event_class: str, data: dict[str, Any]) -> Row:
    """The row for one event."""
    if event_class not in _RECORDS:
        return _OTHERS.get(event_class, _ALERT)
    if event_class == "disclosure":
        return DISCLOSURE
    return _BY_ACTION.get(str(data.get("action", "")), OPERATION)


def subtype_of(row: Row, data: dict[str, Any]) -> Coding:
    """`vread` and `patch` keep the profile of their row and name themselves."""
    interaction = str((data.get("request") or {}).get("interaction", ""))
    exact = row.type == RESTFUL and interaction in _EXACT
    return coding(REST, interaction, interaction) if exact else row.subtype
