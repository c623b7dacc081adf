"""The form of what callers may name: types, ids, platforms, operations, procedure codes (FG-8). No look-ups here."""

from __future__ import annotations

import re

from wardmesh_common.errors import BadRequest

OPERATIONS = frozenset(
    {
        "$everything",
        "$validate",
        "$summary",
        "$document",
        "$expand",
        "$lookup",
        "$translate",
        "$subsumes",
        "$closure",
        "$process-message",
        "$evaluate-measure",
        "$submit-data",
        "$collect-data",
    }
)

_type = re.compile(r"[A-Z][A-Za-z]+").fullmatch
_id = re.compile(r"[A-Za-z0-9\-.]{1,64}").fullmatch
_platform = re.compile(r"[a-z][a-z0-9\-]+").fullmatch
_parameter = re.compile(r"_?[A-Za-z][A-Za-z0-9_\-]*([.:][A-Za-z0-9_\-]+)*").fullmatch

# A type in an error text is cut here: the text names it, it must not become a channel for anything longer.
_QUOTED = 64

CPT = "http://www.ama-assn.org/go/cpt"
_code_forms = {
    "cpt": re.compile(r"[0-9]{5}").fullmatch,
    "hcpcs": re.compile(r"[A-Z][0-9]{4}").fullmatch,
    "icd": re.compile(r"[A-Z0-9]{3,7}\.?[A-Z0-9]*").fullmatch,
    "sct": re.compile(r"[0-9]{6,18}").fullmatch,
    "snomed": re.compile(r"[0-9]{6,18}").fullmatch,
}
_any_code = re.compile(r"[A-Z0-9]{3,10}").fullmatch


def check_type(value: str) -> str:
    if not _type(value):
        raise BadRequest(
            f"Invalid resource type '{value[:_QUOTED]}'. "
            "A resource type starts with an upper case letter and has letters only, for example Patient."
        )
    return value


def check_id(value: str, name: str = "resource_id") -> str:
    if not _id(value):
        raise BadRequest(f"Invalid {name}: 1 to 64 characters, only letters, digits, '-' and '.'.")
    return value


def is_platform_id(value: str) -> bool:
    return _platform(value) is not None


def check_platform(value: str) -> str:
    if not _platform(value):
        raise BadRequest(
            "Invalid platform_id: it starts with a lower case letter and has lower case letters, digits and '-' only."
        )
    return value


def check_operation(value: str) -> str:
    if value not in OPERATIONS:
        raise BadRequest(f"Invalid operation. Allowed operations: {', '.join(sorted(OPERATIONS))}.")
    return value


def check_parameter(value: str) -> str:
    if not _parameter(value):
        raise BadRequest("Invalid search parameter name.")
    return value


def check_procedure_code(value: str, code_system: str = CPT) -> str:
    """The code in upper case, when its form fits the code system."""
    code = value.upper()
    system = code_system.lower()
    form = next((form for key, form in _code_forms.items() if key in system), _any_code)
    if not form(code):
        raise BadRequest("Invalid procedure_code for this code system.")
    return code
