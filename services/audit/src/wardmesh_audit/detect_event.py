"""What detection looks at in one event of the stream."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec import Struct

_PREFIX = "org.wardmesh.audit."
_AHEAD = timedelta(hours=1)  # a producer's clock further ahead than this is not believed


class Seen(Struct, kw_only=True, gc=False):
    """One event. `stored` is when the stream took it, so that replaying gives the same."""

    log: int
    seq: int
    event_id: uuid.UUID
    at: datetime
    stored: datetime
    tenant: str
    type: str
    phase: str
    outcome: str
    actor: str
    actor_type: str
    patient: str  # pseudonym in hex
    purpose: str
    relationship: str
    break_glass: bool
    reason: str = ""  # the code beside the outcome
    handle: bytes | None = None  # of the patient in the directory; filled in by whoever can look it up


class _Code(Struct, frozen=True, gc=False):
    code: str = ""
    reason: str = ""


class _Person(Struct, frozen=True, gc=False):
    id: str = ""
    type: str = ""


class _Actor(_Person, frozen=True, gc=False):
    on_behalf_of: _Person | None = None


class _Patient(Struct, gc=False):
    pseudonym: str = ""


class _Glass(Struct, frozen=True, gc=False):
    used: bool = False


# Fields in the order of sorted keys, as the leaves have them: the decoder looks for the next one first.


class _Data(Struct, gc=False):
    actor: _Actor = _Actor()
    break_glass: _Glass = _Glass()
    outcome: _Code = _Code()
    patient: _Patient | None = None
    phase: str = ""
    purpose_of_use: str = ""
    relationship: str = ""


class _Event(Struct, gc=False, kw_only=True):
    data: _Data
    id: uuid.UUID
    tenant: str = "default"
    time: datetime
    type: str


_decoder = msgspec.json.Decoder(_Event)


def seen(log: int, seq: int, leaf: bytes, stored: datetime) -> Seen | None:
    """None for what is no event: malformed lines are incidents of their own."""
    try:
        event = _decoder.decode(leaf)
    except msgspec.MsgspecError:
        return None
    if not event.type.startswith(_PREFIX) or event.time.tzinfo is None:
        return None
    data = event.data
    kind = event.type[len(_PREFIX) :].partition(".")[0]
    at = event.time if event.time <= stored + _AHEAD else stored
    person = data.actor.on_behalf_of or data.actor
    return Seen(
        log=log,
        seq=seq,
        event_id=event.id,
        at=at if at.tzinfo is UTC else at.astimezone(UTC),
        stored=stored,
        tenant=event.tenant,
        type=kind,
        phase=data.phase,
        outcome=data.outcome.code,
        actor=person.id,
        actor_type=person.type,
        patient=data.patient.pseudonym if data.patient else "",
        purpose=data.purpose_of_use,
        relationship=data.relationship,
        break_glass=data.break_glass.used or kind == "break_glass",
        reason=data.outcome.reason,
    )
