"""The tools that ask a payer what it demands: prior authorization, forms, rules (FG-23)."""

from __future__ import annotations

from wardmesh_common.vocabulary import CHECK_PRIOR_AUTH, COVERAGE_RULES, QUESTIONNAIRE_PACKAGE, Interaction
from wardmesh_gateway.rules import CPT
from wardmesh_gateway.schemas import PLATFORM, Schema, tool_input
from wardmesh_gateway.tool_spec import ToolSpec

LONGEST = 512  # forms are checked with the words of FG-8, not by the schema

_PATIENT_ID: Schema = {
    "type": "string",
    "maxLength": LONGEST,
    "description": "Logical id of the Patient, the beneficiary of the Coverage.",
}
_COVERAGE_ID: Schema = {
    "type": "string",
    "maxLength": LONGEST,
    "description": "Logical id of the Coverage, for example found by searching Coverage with its beneficiary.",
}
_CODE: Schema = {
    "type": "string",
    "maxLength": LONGEST,
    "description": "Code of the procedure, for example '70551' (CPT) or 'E0601' (HCPCS).",
}
_SYSTEM: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": LONGEST,
    "default": CPT,
    "description": "Address of the code system; CPT unless another one is named.",
}
_FORM_URL: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": LONGEST,
    "description": "Canonical address of one questionnaire, as check_prior_auth gives it; without it all that apply.",
}
_TEXT: Schema = {"type": "string"}
_LIST: Schema = {"type": "array", "items": {"type": "object"}}

COVERAGE_TOOLS: tuple[ToolSpec, ...] = (
    ToolSpec(
        name="check_prior_auth",
        title="Check prior authorization",
        summary="Ask a payer whether a procedure needs prior authorization under a person's Coverage. "
        "The status is required, not-required, conditional or unknown; unknown means that the payer did not say.",
        interaction=Interaction.OPERATION,
        operation=CHECK_PRIOR_AUTH,
        input=tool_input(
            ("platform_id", "patient_id", "coverage_id", "procedure_code"),
            platform_id=PLATFORM,
            patient_id=_PATIENT_ID,
            coverage_id=_COVERAGE_ID,
            procedure_code=_CODE,
            code_system=_SYSTEM,
        ),
        output={
            "type": "object",
            "properties": {
                "status": {"type": "string", "enum": ["required", "not-required", "conditional", "unknown"]},
                "platform": {"type": "object"},
                "reason": _TEXT,
                "questionnaire_url": _TEXT,
                "documentation_required": {"type": "boolean"},
                "info_needed": {"type": "array", "items": _TEXT},
            },
        },
    ),
    ToolSpec(
        name="get_questionnaire_package",
        title="Get the questionnaires of a payer",
        summary="Fetch the forms that a payer wants filled in for a Coverage, with their value sets and libraries. "
        "With raw_format the FHIR Bundle itself.",
        interaction=Interaction.OPERATION,
        operation=QUESTIONNAIRE_PACKAGE,
        input=tool_input(
            ("platform_id", "coverage_id"),
            platform_id=PLATFORM,
            coverage_id=_COVERAGE_ID,
            questionnaire_url=_FORM_URL,
            raw_format={"type": "boolean", "default": False, "description": "Return the FHIR Bundle as it came."},
        ),
        output={
            "type": "object",
            "properties": {
                "questionnaires": _LIST,
                "value_sets": {"type": "object"},
                "libraries": {"type": "array", "items": _TEXT},
                "raw_bundle": {"type": "object"},
            },
        },
    ),
    ToolSpec(
        name="get_policy_rules",
        title="Get a payer's rules",
        summary="Read the rules that a payer has published for a procedure code: criteria and documents it wants.",
        interaction=Interaction.OPERATION,
        operation=COVERAGE_RULES,
        input=tool_input(
            ("platform_id", "procedure_code"), platform_id=PLATFORM, procedure_code=_CODE, code_system=_SYSTEM
        ),
        output={
            "type": "object",
            "properties": {
                "platform_id": _TEXT,
                "procedure_code": _TEXT,
                "code_system": _TEXT,
                "rules": _LIST,
                "markdown_summary": _TEXT,
                "last_updated": _TEXT,
            },
        },
    ),
)
