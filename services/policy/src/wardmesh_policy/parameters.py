"""What a search asks by: the names it uses itself, and the kinds it reaches into through chains and _has (PX-11)."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote_plus

from msgspec import Struct

from wardmesh_common.errors import BadRequest

# An untyped chain (`actor.address=…`) may reach any of those whom masks hide: it needs the right to search all of them.
PEOPLE = ("Patient", "Practitioner", "RelatedPerson")
# … unless the name says which: these parameters of R4 refer to one kind (`subject` to people as Patient only).
LINKS = {
    "patient": ("Patient",),
    "subject": ("Patient",),
    "beneficiary": ("Patient",),
    "practitioner": ("Practitioner",),
    "organization": ("Organization",),
    "encounter": ("Encounter",),
    "location": ("Location",),
}
# Expressions and full text see every element and every link of what they search.
SEES_ALL = frozenset({"_filter", "_query", "_text", "_content"})
MAX_FIELDS = 500


class Asked(Struct, frozen=True, kw_only=True):
    """`params`: names without modifiers, sort keys included. `reached`: (kind, parameter) pairs of other kinds."""

    params: tuple[str, ...]
    arguments: tuple[tuple[str, str], ...]
    reached: tuple[tuple[str, str], ...]


def read_query(query: str) -> Asked:
    """Raises BadRequest for more parameters than anyone needs."""
    if not query:
        return Asked(params=(), arguments=(), reached=())
    try:
        arguments = tuple(parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise BadRequest("The query has too many parameters.") from None
    names: dict[str, None] = {}
    reached: dict[tuple[str, str], None] = {}
    for name in (*(name for name, _ in arguments), *_sort_keys(arguments), *_after_semicolons(query)):
        own, others = _split(name)
        names[own] = None
        reached.update(dict.fromkeys(others))
    return Asked(params=tuple(names), arguments=arguments, reached=tuple(reached))


def _sort_keys(arguments: tuple[tuple[str, str], ...]) -> list[str]:
    """Sorting by an element tells its order; some servers sort by chains too."""
    values = (value for name, value in arguments if name.partition(":")[0] == "_sort")
    return [key.strip().lstrip("-") for value in values for key in value.split(",")]


def _after_semicolons(query: str) -> list[str]:
    """Some servers still read `;` as `&`: what would be a parameter to them counts as one."""
    if ";" not in query:
        return []
    pieces = (piece for pair in query.split("&") for piece in pair.split(";")[1:])
    return [unquote_plus(name) for name, equals, _ in (piece.partition("=") for piece in pieces) if equals]


def _split(name: str) -> tuple[str, list[tuple[str, str]]]:
    """`subject:Patient.name` -> ("subject", [("Patient", "name")]); `_has:Observation:patient:code` likewise.

    Both at once too: `patient._has:Group:member:code` reaches Patient, and Group from there.
    """
    if name.startswith("_has:"):
        return "_has", _has(name)
    chain, goes_on, rest_of_it = name.partition("._has:")
    if goes_on:
        own, reached = _split(f"{chain}._has")
        return own, [*reached, *_has(f"_has:{rest_of_it}")]
    first, *rest = name.split(".")
    own, _, kind = first.partition(":")
    if own in SEES_ALL:
        return own, [(person, own) for person in PEOPLE]
    reached = [(person, "identifier") for person in PEOPLE] if kind == "identifier" else []
    link = own
    for segment in rest:
        parameter, _, following = segment.partition(":")
        kinds = (kind,) if kind[:1].isupper() else LINKS.get(link, PEOPLE)
        reached += [(each, parameter) for each in kinds]
        link, kind = parameter, following
    return own, reached


def _has(name: str) -> list[tuple[str, str]]:
    """`_has:Observation:patient:_has:AuditEvent:entity:agent`: each step reaches one kind."""
    parts = name.split(":", 3)
    if len(parts) < 4:
        return [(person, "_has") for person in PEOPLE]
    kind, link, rest = parts[1], parts[2], parts[3]
    if rest.startswith("_has:"):
        return [(kind, link), *_has(rest)]
    parameter, chained = _split(rest)
    return [(kind, link), (kind, parameter), *chained]
