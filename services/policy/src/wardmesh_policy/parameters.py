"""What a search asks by: the names it uses itself, and the kinds it reaches into through chains and _has (PX-11)."""

from __future__ import annotations

from urllib.parse import parse_qsl

from msgspec import Struct

# An untyped chain (`patient.address=…`) names no kind. People are what it can reveal, so it counts as a Patient search.
UNTYPED = "Patient"


class Asked(Struct, frozen=True, kw_only=True):
    """`params`: names without modifiers, sort keys included. `reached`: (kind, parameter) pairs of other kinds."""

    params: tuple[str, ...]
    arguments: tuple[tuple[str, str], ...]
    reached: tuple[tuple[str, str], ...]


def read_query(query: str) -> Asked:
    """Never raises: what cannot be read is refused by the platform's strict handling, not guessed here."""
    if not query:
        return Asked(params=(), arguments=(), reached=())
    arguments = tuple(parse_qsl(query, keep_blank_values=True, max_num_fields=500))
    names: dict[str, None] = {}
    reached: dict[tuple[str, str], None] = {}
    for name, value in arguments:
        own, others = _split(name)
        names[own] = None
        reached.update(dict.fromkeys(others))
        if own == "_sort":
            names.update(dict.fromkeys(key.strip().lstrip("-").partition(":")[0] for key in value.split(",")))
    return Asked(params=tuple(names), arguments=arguments, reached=tuple(reached))


def _split(name: str) -> tuple[str, list[tuple[str, str]]]:
    """`subject:Patient.name` -> ("subject", [("Patient", "name")]); `_has:Observation:patient:code` likewise."""
    if name.startswith("_has:"):
        return "_has", _has(name)
    first, *rest = name.split(".")
    own, _, kind = first.partition(":")
    reached: list[tuple[str, str]] = []
    for segment in rest:
        parameter, _, following = segment.partition(":")
        reached.append((kind if kind[:1].isupper() else UNTYPED, parameter))
        kind = following
    return own, reached


def _has(name: str) -> list[tuple[str, str]]:
    """`_has:Observation:patient:_has:AuditEvent:entity:agent`: each step reaches one kind."""
    parts = name.split(":", 3)
    if len(parts) < 4:
        return [(UNTYPED, "_has")]
    kind, link, rest = parts[1], parts[2], parts[3]
    if rest.startswith("_has:"):
        return [(kind, link), *_has(rest)]
    parameter, chained = _split(rest)
    return [(kind, link), (kind, parameter), *chained]
