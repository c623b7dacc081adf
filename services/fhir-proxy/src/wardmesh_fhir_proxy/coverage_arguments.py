"""What the coverage operations are asked with: read strictly, whoever checked it before."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec
from msgspec import Struct

from wardmesh_common.errors import BadRequest

_ID = re.compile(r"(?!\.+$)[A-Za-z0-9\-.]{1,64}")
_CODE = re.compile(r"[A-Z0-9.]{3,20}")
_ADDRESS = re.compile(r"[\x21-\x7e]{1,512}")


class CheckArguments(Struct, kw_only=True, forbid_unknown_fields=True):
    patient_id: str
    procedure_code: str
    code_system: str

    def check(self) -> None:
        _id(self.patient_id, "patient_id")
        _procedure(self.procedure_code, self.code_system)


class PackageArguments(Struct, kw_only=True, forbid_unknown_fields=True):
    questionnaire_url: str = ""
    raw_format: bool = False

    def check(self) -> None:
        if self.questionnaire_url and not _ADDRESS.fullmatch(self.questionnaire_url):
            raise BadRequest("Invalid questionnaire_url: it is not an address.")


class RulesArguments(Struct, kw_only=True, forbid_unknown_fields=True):
    procedure_code: str
    code_system: str

    def check(self) -> None:
        _procedure(self.procedure_code, self.code_system)


Arguments = TypeVar("Arguments", CheckArguments, PackageArguments, RulesArguments)


def read_arguments(body: bytes, kind: type[Arguments]) -> Arguments:
    """Raises BadRequest."""
    try:
        arguments = msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        raise BadRequest("The arguments of the operation are not well-formed.") from None
    arguments.check()
    return arguments


def check_coverage_id(value: str) -> str:
    return _id(value, "coverage_id")


def _id(value: str, name: str) -> str:
    if not _ID.fullmatch(value):
        raise BadRequest(f"Invalid {name}: 1 to 64 characters, only letters, digits, '-' and '.'.")
    return value


def _procedure(code: str, system: str) -> None:
    if not _CODE.fullmatch(code) or not _ADDRESS.fullmatch(system):
        raise BadRequest("Invalid procedure_code for this code system.")
