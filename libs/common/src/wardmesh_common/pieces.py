"""A request in FHIR's terms: one that came alone, or the one that an entry of a batch or transaction stands for."""

from __future__ import annotations

import re

from msgspec import Struct

from wardmesh_common.contracts import Entry
from wardmesh_common.errors import BadRequest
from wardmesh_common.vocabulary import EXPORT_STEPS, Interaction, is_write


class Piece(Struct, frozen=True, kw_only=True):
    """What policy, scopes and the record all judge. A compartment search has its member type as `operation`."""

    interaction: Interaction
    type: str = ""
    id: str = ""
    operation: str = ""
    query: str = ""
    if_none_exist: str = ""
    subject: str = ""
    # A patch that may test, copy or move elements: it can bring out what its author is not shown.
    probing: bool = False


METHODS = {
    "PUT": Interaction.UPDATE,
    "PATCH": Interaction.PATCH,
    "DELETE": Interaction.DELETE,
    "GET": Interaction.READ,
    "HEAD": Interaction.READ,
}
READS = ("GET", "HEAD")
# Nothing percent-encoded, no empty or dotted segments: what one reader takes for an id another takes for an operation.
_path = re.compile(
    r"|(?:[A-Z][A-Za-z]{0,63}|_history|_search|metadata|\$[a-z-]+)(?:/(?!\.+(?:/|$))[A-Za-z0-9\-.$_*]{1,64})*"
)
_unclear = "An entry's request is not one that can be decided on."


def piece_of(entry: Entry) -> Piece:
    """`GET Patient/1`, `PUT Observation?identifier=x`, `POST Patient/$validate` … as FHIR R4 §3.1.0.11 reads them.

    Raises BadRequest for every other shape: what the platform would make of it cannot be foreseen.
    """
    path, _, query = entry.url.partition("?")
    parts = path.split("/") if path else []
    method = entry.method.upper()
    _expect(_path.fullmatch(path) is not None, Interaction.READ)
    piece = Piece(
        interaction=_interaction(method, parts),
        type=parts[0] if path[:1].isupper() else "",
        id=parts[1] if len(parts) > 1 and _plain(parts[1]) else "",
        operation=_operation(parts) or _member(method, parts),
        query=query,
        if_none_exist=entry.if_none_exist,
        probing=method == "PATCH",  # its body is not seen here
    )
    # It is announced in the ledger before it begins, and followed by links that an entry has no place for.
    if piece.operation in EXPORT_STEPS:
        raise BadRequest("An export is asked for alone, not in a bundle.")
    # Without an id or criteria it would mean every resource of the type.
    if is_write(piece.interaction) and not (piece.type and (piece.id or query or method == "POST")):
        raise BadRequest(_unclear)
    return piece


def _interaction(method: str, parts: list[str]) -> Interaction:
    """By the shape of the path: T a type, I an id, and the words of FHIR as they are."""
    if _operation(parts):
        fits = method in (*READS, "POST") and parts[-1].startswith("$") and _shape(parts[:-1]) in ("", "T", "T/I")
        return _expect(fits, Interaction.OPERATION)
    shape = _shape(parts)
    if method == "POST":
        # `_search` has its criteria in a body that is not seen here, so it cannot be decided on in a bundle.
        return _expect(shape == "T", Interaction.CREATE)
    if method not in READS:
        return _expect(method in METHODS and shape in ("T", "T/I"), METHODS.get(method, Interaction.DELETE))
    reads = {
        "metadata": Interaction.CAPABILITIES,
        "T/I/_history/I": Interaction.VREAD,
        "_history": Interaction.HISTORY,
        "T/_history": Interaction.HISTORY,
        "T/I/_history": Interaction.HISTORY,
        "T/I": Interaction.READ,
        "T/I/I": Interaction.SEARCH,
        "T/_search": Interaction.SEARCH,
        "_search": Interaction.SEARCH,
        "T": Interaction.SEARCH,
        "": Interaction.SEARCH,
    }
    return _expect(shape in reads, reads.get(shape, Interaction.SEARCH))


def _shape(parts: list[str]) -> str:
    first = ["T" if part[0].isupper() else part for part in parts[:1]]
    return "/".join(first + ["I" if _plain(part) else part for part in parts[1:]])


def _plain(part: str) -> bool:
    return not part.startswith(("$", "_"))


def _operation(parts: list[str]) -> str:
    return next((part for part in parts if part.startswith("$")), "")


def _expect(fits: bool, interaction: Interaction) -> Interaction:
    if not fits:
        raise BadRequest(_unclear)
    return interaction


def _member(method: str, parts: list[str]) -> str:
    """The member type of a compartment search: `Patient/1/Observation` -> `Observation`."""
    return parts[2] if method in READS and _shape(parts) == "T/I/I" else ""
