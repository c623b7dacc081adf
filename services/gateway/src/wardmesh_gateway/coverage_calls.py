"""From the arguments of a coverage tool or route to what the door is asked for: pure functions (FG-8, FG-10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from wardmesh_common.errors import BadRequest
from wardmesh_common.vocabulary import CHECK_PRIOR_AUTH, COVERAGE_RULES, QUESTIONNAIRE_PACKAGE, Interaction
from wardmesh_gateway.calls import Wanted
from wardmesh_gateway.rules import CPT, check_id, check_procedure_code

Arguments = Mapping[str, Any]
JSON = "application/json"


def check_prior_auth(arguments: Arguments, _view_default: str) -> Wanted:
    patient_id = check_id(arguments["patient_id"], "patient_id")
    coverage_id = check_id(arguments["coverage_id"], "coverage_id")
    return _wanted("check_prior_auth", CHECK_PRIOR_AUTH, coverage_id, {"patient_id": patient_id, **_code(arguments)})


def questionnaire_package(arguments: Arguments, _view_default: str) -> Wanted:
    coverage_id = check_id(arguments["coverage_id"], "coverage_id")
    told: dict[str, Any] = {"raw_format": bool(arguments.get("raw_format", False))}
    if url := arguments.get("questionnaire_url"):
        told["questionnaire_url"] = _address(url, "questionnaire_url")
    return _wanted("get_questionnaire_package", QUESTIONNAIRE_PACKAGE, coverage_id, told)


def policy_rules(arguments: Arguments, _view_default: str) -> Wanted:
    return _wanted("get_policy_rules", COVERAGE_RULES, "", _code(arguments))


def _code(arguments: Arguments) -> dict[str, str]:
    system = _address(arguments.get("code_system", CPT), "code_system")
    return {"procedure_code": check_procedure_code(arguments["procedure_code"], system), "code_system": system}


def _address(value: str, name: str) -> str:
    """An address without blanks or anything that is not ASCII."""
    if not value.isascii() or not value.isprintable() or " " in value or not 0 < len(value) <= 512:
        raise BadRequest(f"Invalid {name}: it is not an address.")
    return value


def _wanted(tool: str, operation: str, coverage_id: str, told: Mapping[str, Any]) -> Wanted:
    return Wanted(
        tool=tool,
        interaction=Interaction.OPERATION,
        type="Coverage",
        id=coverage_id,
        operation=operation,
        body=msgspec.json.encode(told),
        media_type=JSON,
    )
