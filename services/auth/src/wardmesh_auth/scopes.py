"""SMART scopes, v1 and v2, as pure functions: does this list of scopes cover this interaction? (FG-35, X-6)."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import parse_qsl

from msgspec import Struct

from wardmesh_common.contracts import Call, Entry
from wardmesh_common.vocabulary import STATEFUL_OPERATIONS, Interaction

# Letters only in the order c, r, u, d, s (SMART 2.2); v1 words instead of letters.
_SCOPE = re.compile(r"(patient|user|system)/([A-Z][A-Za-z]*|\*)\.(read|write|\*|c?r?u?d?s?)(?:\?(.+))?")
_V1 = {"read": "rs", "write": "cud", "*": "cruds"}
_LETTERS = {
    Interaction.READ: "r",
    Interaction.VREAD: "r",
    Interaction.SEARCH: "s",
    Interaction.CREATE: "c",
    Interaction.UPDATE: "u",
    Interaction.PATCH: "u",
    Interaction.DELETE: "d",
}
_METHODS = {
    "PUT": Interaction.UPDATE,
    "PATCH": Interaction.PATCH,
    "DELETE": Interaction.DELETE,
}
_EVERYTHING = "cruds"


class SmartScope(Struct, frozen=True):
    """One scope taken apart; `constraints` are the `?category=laboratory` pairs of v2."""

    context: str
    type: str
    letters: frozenset[str]
    constraints: frozenset[tuple[str, str]]


@lru_cache(maxsize=4096)
def parse(scope: str) -> SmartScope | None:
    """None for anything that is not a well-formed SMART resource scope: such a word grants nothing."""
    found = _SCOPE.fullmatch(scope)
    if found is None or not found[3]:
        return None
    pairs = parse_qsl(found[4] or "", keep_blank_values=True)
    if found[4] and not pairs:
        return None
    return SmartScope(found[1], found[2], frozenset(_V1.get(found[3], found[3])), frozenset(pairs))


def smart(scopes: tuple[str, ...]) -> bool:
    """True when at least one of them is a SMART resource scope."""
    return any(parse(scope) is not None for scope in scopes)


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
    return _LETTERS.get(interaction, _EVERYTHING)


def allows(
    scopes: tuple[str, ...],
    interaction: Interaction,
    resource_type: str,
    *,
    instance: bool = False,
    operation: str = "",
    query: str | None = None,
) -> bool:
    """Do these scopes cover this interaction on this type? An empty type is the whole system.

    With `query` None a constrained scope counts: the platform itself enforces its constraint. With a query it counts
    only for a search that carries every pair of the constraint, because nobody after us would enforce it.
    """
    letters = needed(interaction, instance=instance, operation=operation)
    # $everything returns every type of a compartment, whatever type it is called on.
    wanted = "*" if operation == "$everything" else resource_type or "*"
    held: set[str] = set()
    for text in scopes:
        scope = parse(text)
        if scope is None or scope.type not in ("*", wanted):
            continue
        if scope.constraints and query is not None and not _carries(interaction, query, scope.constraints):
            continue
        held |= scope.letters
    return held.issuperset(letters)


def call_allowed(scopes: tuple[str, ...], call: Call, *, constraints_matter: bool = False) -> bool:
    """`allows` for a whole call; a batch or transaction entry by entry (PX-10)."""
    query = call.query if constraints_matter else None
    if call.entries:
        return all(_entry_allowed(scopes, entry, strict=constraints_matter) for entry in call.entries)
    return allows(
        scopes,
        call.interaction,
        call.resource.type,
        instance=bool(call.resource.id),
        operation=call.operation,
        query=query,
    )


def read_entry(entry: Entry) -> tuple[Interaction, str, bool, str, str]:
    """Interaction, type, instance level, operation and query that one bundle entry stands for."""
    path, _, query = entry.url.partition("?")
    parts = [part for part in path.split("/") if part]
    operation = next((part for part in parts if part.startswith("$")), "")
    kind = parts[0] if parts and parts[0][0].isalpha() else ""
    instance = len(parts) > 1 and not parts[1].startswith(("$", "_"))
    method = entry.method.upper()
    if operation:
        return Interaction.OPERATION, kind, instance, operation, query
    if method in ("GET", "HEAD"):
        if "_history" in parts:
            found = Interaction.VREAD if parts[-1] != "_history" else Interaction.HISTORY
        elif kind == "metadata":
            found = Interaction.CAPABILITIES
        else:
            found = Interaction.READ if instance else Interaction.SEARCH
        return found, kind, instance, "", query
    if method == "POST":
        search = bool(parts) and parts[-1] == "_search"
        found = Interaction.SEARCH if search else Interaction.CREATE
        return found if kind or search else Interaction.TRANSACTION, kind, False, "", query
    return _METHODS.get(method, Interaction.TRANSACTION), kind, instance, "", query


def _entry_allowed(scopes: tuple[str, ...], entry: Entry, *, strict: bool) -> bool:
    interaction, kind, instance, operation, query = read_entry(entry)
    return allows(
        scopes,
        interaction,
        kind,
        instance=instance,
        operation=operation,
        query=query if strict else None,
    )


def _carries(interaction: Interaction, query: str, constraints: frozenset[tuple[str, str]]) -> bool:
    return interaction is Interaction.SEARCH and constraints <= set(parse_qsl(query, keep_blank_values=True))
