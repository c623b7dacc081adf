"""Which class of audit event a call becomes, with its action, method and purpose (audit.v1 subjects have these)."""

from __future__ import annotations

from typing import Final

from wardmesh_common.contracts import Call, Outcome
from wardmesh_common.record_entries import changes
from wardmesh_common.vocabulary import EXPORTS, STATEFUL_OPERATIONS, Interaction, is_write

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
SIGNED_IN, SIGNED_OUT = "signed_in", "signed_out"
# What an operation of sign-in came to, in the words of the ledger. Only these two are a `login`: what leads
# there, and asking how it stands, are operations like others.
_REACHED: Final[dict[str, str]] = {
    "auth.success": SIGNED_IN,
    "auth.revoke": SIGNED_OUT,
    "session.destroy": SIGNED_OUT,
    "auth.start": "sign_in_begun",
    "auth.callback": "sign_in_returned",
    "auth.failure": "sign_in_called_off",
    "session.create": "session_opened",
    "token.refresh": "token_renewed",
}
_OF_NOBODY: Final = {"session.destroy": "session_closed"}
_NOBODY: Final = ("anonymous", "session:")  # a browser in which nobody has signed in is a principal of its own
BREAK_GLASS = "break_glass"
GLASS_REFUSED = "break_glass.refused"  # a pass was shown that is not good, or one too many was wanted
# Opening and closing emergency access is signing in for more than a role gives.
_GLASS: Final = frozenset({"open_break_glass", "close_break_glass"})
# What is not reading among the procedures of the ledger.
_OFFICE: Final[dict[str, tuple[str, str, str]]] = {
    "place_hold": ("retention", "C", "POST"),
    "release_hold": ("retention", "U", "POST"),
    "close_review": ("alert", "U", "POST"),
    "suspend_disclosures": ("privilege", "privilege", "POST"),
    "read_entries": ("export", "export", "GET"),
}


def classify(call: Call, outcome: Outcome | None = None) -> tuple[str, str, str]:
    if call.procedure:
        if opens_glass(call):
            return BREAK_GLASS, "privilege", "POST"
        if sign_in_reached(call, outcome) not in ("", SIGNED_IN, SIGNED_OUT):
            return _CLASS[Interaction.OPERATION]
        office = _OFFICE.get(call.tool) if call.performer == "audit" else None
        return office or _PROCEDURES[call.performer]
    if call.interaction is Interaction.OPERATION:
        if call.operation in STATEFUL_OPERATIONS:
            return "write", "E", "POST"
        if call.operation in EXPORTS:
            return "export", "export", "GET"
    event_class, action, method = _CLASS[call.interaction]
    return (BREAK_GLASS if call.emergency else event_class), action, method


def sign_in_reached(call: Call, outcome: Outcome | None) -> str:
    """The reason beside the success of an operation of sign-in; "" for all others, and for what failed."""
    if not call.procedure or call.performer != "auth" or opens_glass(call):
        return ""
    if outcome is None or outcome.problem is not None or outcome.status >= 400:
        return ""
    who = call.principal.id if call.principal else "anonymous"
    ended = _OF_NOBODY.get(outcome.event, "") if who.startswith(_NOBODY) else ""
    return ended or _REACHED.get(outcome.event, "sign_in_asked")


def opens_glass(call: Call) -> bool:
    return call.procedure and call.performer == "auth" and call.tool in _GLASS


def purpose_of(call: Call, outcome: Outcome | None, *, is_patient: bool) -> str:
    """Patients ask for themselves; what others do with records is theirs by role. Procedures of ours treat nobody.

    What was refused has the purpose that was asked for: `outcome` and `policy` say that it was not granted.
    """
    if call.emergency is not None or opens_glass(call) or (outcome is not None and outcome.event == GLASS_REFUSED):
        return "BTG"
    if is_patient:
        return "PATRQT"
    return "" if call.decision is None or call.procedure else call.decision.purpose


def announced(call: Call) -> bool:
    """True when the ledger has an intent before the platform is asked: writes, exports, break-glass (AU-106)."""
    if call.entries:
        return changes(call)
    return is_write(call.interaction, call.operation) or call.operation in EXPORTS or call.emergency is not None
