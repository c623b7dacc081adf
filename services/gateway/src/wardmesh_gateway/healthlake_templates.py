"""What is worked out here and asks no datastore: the quick check of a resource, and two templates (HL-8, HL-9)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Arguments = Mapping[str, Any]

CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
REQUIRED = {"Observation": ("status", "code"), "Condition": ("subject",)}
_QUOTED = 64


def validate(arguments: Arguments) -> dict[str, Any]:
    """`valid` is false whenever there is an issue."""
    resource: Mapping[str, Any] = arguments["resource_data"]
    found = resource.get("resourceType")
    issues: list[str] = []
    warnings: list[str] = []
    if not found:
        issues.append("Missing required 'resourceType' field")
    wanted = arguments.get("resource_type")
    if found and wanted and found != wanted:
        given = found[:_QUOTED] if isinstance(found, str) else "None"
        issues.append(f"Resource type mismatch: expected '{wanted[:_QUOTED]}', got '{given}'")
    kind = found if isinstance(found, str) else ""
    issues += [f"Missing required field: '{name}'" for name in REQUIRED.get(kind, ()) if not resource.get(name)]
    if "id" in resource and not (isinstance(resource["id"], str) and resource["id"]):
        issues.append("Resource 'id' must be a non-empty string")
    if kind == "Patient" and not (resource.get("name") or resource.get("identifier")):
        warnings.append("Patient should have either 'name' or 'identifier' field")
    return {"valid": not issues, "issues": issues, "warnings": warnings}


def patient(arguments: Arguments) -> dict[str, Any]:
    name = {"use": "official", "family": arguments["family_name"], "given": list(arguments["given_names"])}
    made: dict[str, Any] = {
        "resourceType": "Patient",
        "name": [name],
        "gender": arguments["gender"],
        "birthDate": arguments["birth_date"],
    }
    system, value = arguments.get("identifier_system"), arguments.get("identifier_value")
    if system and value:
        made["identifier"] = [{"system": system, "value": value}]
    telecom: list[dict[str, str]] = []
    if phone := arguments.get("phone"):
        telecom.append({"system": "phone", "value": phone, "use": "home"})
    if email := arguments.get("email"):
        telecom.append({"system": "email", "value": email})
    if telecom:
        made["telecom"] = telecom
    if address := arguments.get("address"):
        made["address"] = [address]
    return made


def observation(arguments: Arguments) -> dict[str, Any]:
    code = {
        "system": arguments["code_system"],
        "code": arguments["code_value"],
        "display": arguments["code_display"],
    }
    made: dict[str, Any] = {
        "resourceType": "Observation",
        "status": arguments.get("status", "final"),
        "code": {"coding": [code]},
        "subject": {"reference": arguments["patient_reference"]},
        "effectiveDateTime": arguments.get("effective_datetime") or _now(),
    }
    if category := arguments.get("category_code"):
        made["category"] = [{"coding": [{"system": CATEGORY, "code": category}]}]
    if arguments.get("value_quantity"):
        made["valueQuantity"] = arguments["value_quantity"]
    elif arguments.get("value_string"):
        made["valueString"] = arguments["value_string"]
    return made


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


WORKED_OUT = {
    "validate_fhir_resource": validate,
    "create_patient_template": patient,
    "create_observation_template": observation,
}
