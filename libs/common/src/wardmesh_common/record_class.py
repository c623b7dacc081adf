"""Which class of audit event a call becomes, with its action and method (audit.v1 subjects are built from these)."""

from __future__ import annotations

from typing import Final

from wardmesh_common.contracts import Call
from wardmesh_common.vocabulary import STATEFUL_OPERATIONS, Interaction

_CLASS: Final[dict[Interaction, tuple[str, str, str]]] = {  # class, action, method
    Interaction.READ: ("access", "R", "GET"),
    Interaction.VREAD: ("access", "R", "GET"),
    Interaction.HISTORY: ("access", "R", "GET"),
    Interaction.CAPABILITIES: ("access", "R", "GET"),
    Interaction.SEARCH: ("search", "search", "GET"),
    Interaction.CREATE: ("write", "C", "POST"),
    Interaction.UPDATE: ("write", "U", "PUT"),
    Interaction.PATCH: ("write", "U", "PATCH"),
    Interaction.DELETE: ("write", "D", "DELETE"),
    Interaction.BATCH: ("write", "E", "POST"),
    Interaction.TRANSACTION: ("write", "E", "POST"),
    Interaction.OPERATION: ("access", "E", "POST"),
}
_PROCEDURES: Final[dict[str, tuple[str, str, str]]] = {
    "auth": ("login", "login", "POST"),
    "audit": ("audit_read", "R", "GET"),
}
# What is not reading among the procedures of the ledger.
_OFFICE: Final[dict[str, tuple[str, str, str]]] = {
    "place_hold": ("retention", "C", "POST"),
    "release_hold": ("retention", "U", "POST"),
    "close_review": ("alert", "U", "POST"),
    "suspend_disclosures": ("privilege", "privilege", "POST"),
    "read_entries": ("export", "export", "GET"),
}


def classify(call: Call) -> tuple[str, str, str]:
    if call.procedure:
        office = _OFFICE.get(call.tool) if call.performer == "audit" else None
        return office or _PROCEDURES[call.performer]
    if call.interaction is Interaction.OPERATION:
        if call.operation in STATEFUL_OPERATIONS:
            return "write", "E", "POST"
        if call.operation == "$export":
            return "export", "export", "GET"
    return _CLASS[call.interaction]
