"""One entry of a batch or transaction, read as the request it stands for."""

from __future__ import annotations

from msgspec import Struct

from wardmesh_common.contracts import Entry
from wardmesh_common.vocabulary import Interaction


class Piece(Struct, frozen=True, kw_only=True):
    """A request in FHIR's terms, whether it came alone or in a bundle."""

    interaction: Interaction
    type: str = ""
    id: str = ""
    operation: str = ""
    query: str = ""
    if_none_exist: str = ""
    subject: str = ""


WRITES = {
    "PUT": Interaction.UPDATE,
    "PATCH": Interaction.PATCH,
    "DELETE": Interaction.DELETE,
}


def piece_of(entry: Entry) -> Piece:
    """`GET Patient/1`, `PUT Observation?identifier=x`, `POST Patient/$validate` … as FHIR R4 §3.1.0.11 reads them."""
    path, _, query = entry.url.partition("?")
    parts = [part for part in path.strip("/").split("/") if part]
    operation = next((part for part in parts if part.startswith("$")), "")
    kind = parts[0] if parts and not parts[0].startswith(("$", "_")) else ""
    resource_id = parts[1] if len(parts) > 1 and not parts[1].startswith(("$", "_")) else ""
    method = entry.method.upper()
    return Piece(
        interaction=_interaction(method, parts, operation, resource_id),
        type=kind,
        id=resource_id,
        operation=operation or _member(method, parts, resource_id),
        query=query,
        if_none_exist=entry.if_none_exist,
    )


def _interaction(method: str, parts: list[str], operation: str, resource_id: str) -> Interaction:  # noqa: PLR0911
    if operation:
        return Interaction.OPERATION
    if method in WRITES:
        return WRITES[method]
    if method == "POST":
        return Interaction.SEARCH if parts and parts[-1] == "_search" else Interaction.CREATE
    if parts == ["metadata"]:
        return Interaction.CAPABILITIES
    if "_history" in parts:
        return Interaction.VREAD if parts[-1] != "_history" and resource_id else Interaction.HISTORY
    if resource_id and not _member(method, parts, resource_id):
        return Interaction.READ
    return Interaction.SEARCH


def _member(method: str, parts: list[str], resource_id: str) -> str:
    """The member type of a compartment search: `Patient/1/Observation` -> `Observation`."""
    if method in ("GET", "HEAD") and resource_id and len(parts) == 3 and not parts[2].startswith(("$", "_")):
        return parts[2]
    return ""
