"""A batch or transaction in the ledger: each entry is an event of its own, as the request it stands for (PX-10)."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from wardmesh_common.contracts import Call, Entry, Outcome, Touched
from wardmesh_common.errors import BadRequest, Problem
from wardmesh_common.pieces import Piece, piece_of
from wardmesh_common.vocabulary import Interaction, Resource, is_write

_REASONS = {
    401: "sign_in_required",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    410: "deleted",
    412: "conflict",
    422: "operation_outcome",
}
_REFUSED = "This entry is not allowed."


class Part(Struct, frozen=True):
    """One entry: the call that it would be alone, how it ended, and whom it touched."""

    position: int
    call: Call
    outcome: Outcome | None
    touched: tuple[Touched, ...]


def parts_of(call: Call, outcome: Outcome | None, touched: tuple[Touched, ...]) -> Iterator[Part]:
    """Every entry; before the platform is asked (`outcome` None) only those that are about to change something."""
    denied = frozenset(denied_of(call))
    by_entry: dict[int, list[Touched]] = {}
    for item in touched:
        if item.entry not in denied:
            by_entry.setdefault(item.entry, []).append(item)
    for position, entry in enumerate(call.entries):
        alone = _alone(call, entry, refused=position in denied)
        if outcome is None and (position in denied or not is_write(alone.interaction, alone.operation)):
            continue
        ended = _ended(outcome, position, refused=position in denied) if outcome is not None else None
        yield Part(position, alone, ended, tuple(by_entry.get(position, ())))


def changes(call: Call) -> bool:
    """True when an entry that is not refused changes something."""
    denied = denied_of(call)
    alone = (_piece(entry) for position, entry in enumerate(call.entries) if position not in denied)
    return any(is_write(piece.interaction, piece.operation) for piece in alone)


def denied_of(call: Call) -> tuple[int, ...]:
    return call.decision.obligations.denied_entries if call.decision else ()


def _piece(entry: Entry) -> Piece:
    try:
        return piece_of(entry)
    except BadRequest:
        return Piece(interaction=Interaction.TRANSACTION)  # unreadable: refused, and the most that it could be


def _alone(call: Call, entry: Entry, *, refused: bool) -> Call:
    piece, decision = _piece(entry), call.decision
    if refused and decision is not None:
        decision = msgspec.structs.replace(decision, allowed=False, reason=_REFUSED)
    return msgspec.structs.replace(
        call,
        interaction=piece.interaction,
        resource=Resource(type=piece.type, id=piece.id),
        operation=piece.operation,
        query=piece.query,
        entries=(),
        decision=decision,
    )


def _ended(outcome: Outcome, position: int, *, refused: bool) -> Outcome:
    """What concerns the whole answer stands with its first entry."""
    if outcome.problem is not None or outcome.status >= 400:
        return outcome
    said = outcome.entries[position] if position < len(outcome.entries) else 0
    status = 403 if refused else said or outcome.status
    problem = None
    if status >= 400:
        problem = Problem(code=_REASONS.get(status, "upstream_unavailable"), status=status, detail=_REFUSED)
    if position == 0:
        return msgspec.structs.replace(outcome, status=status, problem=problem, entries=())
    return Outcome(status=status, problem=problem, event=outcome.event)
