"""What a call needs of SMART scopes: which rights on which types, for every interaction and every entry of a bundle."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from wardmesh_common.contracts import Call, Entry
from wardmesh_common.errors import BadRequest
from wardmesh_common.pieces import Piece, piece_of
from wardmesh_common.vocabulary import (
    CHECK_PRIOR_AUTH,
    COVERAGE_OPERATIONS,
    EXPORT_STEPS,
    STATEFUL_OPERATIONS,
    Interaction,
    criteria_of,
)

LETTERS = {
    Interaction.READ: "r",
    Interaction.VREAD: "r",
    Interaction.SEARCH: "s",
    Interaction.CREATE: "c",
    Interaction.UPDATE: "u",
    Interaction.PATCH: "u",
    Interaction.DELETE: "d",
}
_CONDITIONAL = frozenset({Interaction.UPDATE, Interaction.PATCH, Interaction.DELETE})
_EVERYTHING = "cruds"
# Operations whose answer holds resources of many types, whatever type they are called on.
_WIDE = frozenset(
    {"$everything", "$document", "$summary", "$evaluate-measure", "$collect-data", "$graphql", *EXPORT_STEPS}
)
_FREE = frozenset({"_filter", "_query"})  # expressions that may name any type
_TYPE = re.compile(r"[A-Z][A-Za-z]{0,63}")
ANY = "*"
UNNAMED = "?"  # somebody who is nobody's own record
UNSTATED = ""  # a type that the query leaves open: only the platform knows it


class Need(Struct, frozen=True):
    """Rights that are needed together on one type; `query` is what a constrained scope is compared with."""

    type: str
    letters: str
    query: str = ""
    search: bool = False  # only a search can promise to keep to a constraint
    patient: str = ""  # whose record it says it is about


@lru_cache(maxsize=4096)
def needed(interaction: Interaction, *, instance: bool = False, operation: str = "") -> str:
    """The letters that an interaction needs, all of them; "" = none at all."""
    if interaction is Interaction.CAPABILITIES:
        return ""
    if interaction is Interaction.HISTORY:
        return "r" if instance else "s"
    if interaction is Interaction.OPERATION:
        return "cud" if operation in STATEFUL_OPERATIONS else "rs"
    # A bundle whose entries nobody listed is judged as the most that it could be.
    return LETTERS.get(interaction, _EVERYTHING)


def needs_of(call: Call) -> tuple[Need, ...]:
    if call.entries:
        return tuple(need for entry in call.entries for need in _needs(read_entry(entry)))
    if call.operation in COVERAGE_OPERATIONS and call.resource.type == "Coverage":
        return _of_coverage(call)
    query = call.query
    if call.interaction is Interaction.SEARCH and call.body:
        query = f"{query}&{call.body.decode('utf-8', 'replace')}"
    return _needs(
        Piece(
            interaction=call.interaction,
            type=call.resource.type,
            id=call.resource.id,
            operation=call.operation,
            query=query,
            if_none_exist=call.headers.get("if-none-exist", ""),
        )
    )


class _Asked(Struct):
    patient_id: str = ""


def _of_coverage(call: Call) -> tuple[Need, ...]:
    """What we ask a payer for a Coverage reads it; the question about prior authorization reads the person too."""
    if call.operation != CHECK_PRIOR_AUTH:
        return (Need("Coverage", "r"),)
    try:
        patient = msgspec.json.decode(call.body, type=_Asked).patient_id
    except (msgspec.MsgspecError, RecursionError, ValueError):
        patient = ""
    named = patient or UNNAMED
    return (Need("Coverage", "r", patient=named), Need("Patient", "r", patient=named))


def read_entry(entry: Entry) -> Piece:
    """The request that one bundle entry stands for; what cannot be read is the most that it could be."""
    try:
        return piece_of(entry)
    except BadRequest:
        return Piece(interaction=Interaction.TRANSACTION)


def _needs(piece: Piece) -> tuple[Need, ...]:
    letters = needed(piece.interaction, instance=bool(piece.id), operation=piece.operation)
    if not letters:
        return ()
    search = piece.interaction is Interaction.SEARCH
    patient = piece.id if piece.type == "Patient" else _named_patient(piece.query) if search else ""
    if piece.type and not (search or piece.query or piece.if_none_exist or piece.operation):
        return (Need(_kind(piece.type), letters, "", False, patient),)  # nearly every call
    found = [Need(kind, letters, piece.query, search, patient) for kind in _types(piece)]
    criteria = criteria_of(piece.if_none_exist)
    if not criteria and piece.interaction in _CONDITIONAL and not piece.id:
        criteria = piece.query
    if criteria:
        # What a conditional write does tells whether something exists: it searches as well.
        found.append(Need(piece.type or ANY, "s", criteria, True, _named_patient(criteria)))
    if piece.query or criteria:
        found += _reached(f"{piece.query}&{criteria}")
    return tuple(found)


def _types(piece: Piece) -> list[str]:
    if piece.interaction is Interaction.OPERATION:
        return [ANY if piece.operation in _WIDE else piece.type or ANY]
    if piece.interaction is Interaction.SEARCH and piece.operation:
        return [_kind(piece.operation)]  # the members of a compartment; `*` is all of them
    if piece.interaction is Interaction.SEARCH and not piece.type:
        named = [value for name, value in parse_qsl(piece.query) if name == "_type"]
        return [_kind(kind) for value in named for kind in value.split(",")] or [ANY]
    return [_kind(piece.type) or ANY]


def _kind(text: str) -> str:
    """A type as it may stand in a challenge. What is none might mean any: it needs a right on all of them."""
    return text if not text or _TYPE.fullmatch(text) else ANY


def _named_patient(query: str) -> str:
    """The patient that a search is about; "" when it names none, and more than one never is anybody's own."""
    names = {"patient", "subject", "patient:Patient", "subject:Patient"}
    found = [value.removeprefix("Patient/") for name, value in parse_qsl(query) if name in names]
    return found[0] if len(found) == 1 else ",".join(found)


def _reached(query: str) -> list[Need]:
    """Types that a search reaches beyond its own: what it includes, and what decides which resources match."""
    found: list[Need] = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        word = name.partition(":")[0]
        if word in ("_include", "_revinclude"):
            source, code, target = (*value.split(":"), "", "")[:3]
            included = source if word == "_revinclude" or source == ANY else target or _target(code)
            found.append(Need(_kind(included), "r"))
        elif word == "_has":
            found += [Need(_kind(kind), "s") for kind in name.split(":")[1::3] if kind != "_has"]
        elif word in _FREE:
            found.append(Need(ANY, "s"))
        elif "." in name:
            links = name.split(".")[:-1]
            found += [Need(_kind(link.partition(":")[2]) or _target(link), "s") for link in links]
    return found


def _target(code: str) -> str:
    return "Patient" if code == "patient" else UNSTATED
