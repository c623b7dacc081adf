"""The columns of an event, derived from its leaf alone: the writer fills them, `verify` compares them."""

from __future__ import annotations

import functools
import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from asyncpg.pgproto.pgproto import UUID
from msgspec import Meta, Struct

MALFORMED = "malformed"
_TYPE_PREFIX = "org.wardmesh.audit."
TEXT_BYTES = 1024  # more would not fit into an index entry
_KEPT = 4096

# The order of COPY; `recorded_at` is the database's own.
COLUMNS = (
    "log_id",
    "seq",
    "event_id",
    "occurred_at",
    "tenant",
    "event_type",
    "phase",
    "action",
    "outcome",
    "actor_id",
    "patient_ref",
    "resource_type",
    "purpose",
    "break_glass",
    "request_id",
    "trace_id",
    "producer",
    "epoch",
    "producer_seq",
    "stream_seq",
    "leaf",
    "leaf_hash",
)
# What `verify` compares: every column that comes out of the leaf.
PROJECTED = COLUMNS[2:19]

# No cycle is possible here, and a verification decodes millions: the collector need not look at them.
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class BadLeaf(Exception):
    """The bytes are not a valid event; they are kept as a malformed one."""


# Fields in the order of sorted keys, as the leaves have them: the decoder looks for the next one first.


class _Code(Struct, gc=False):
    code: str | None = None


class _Person(Struct, gc=False):
    id: str | None = None


class _Actor(Struct, gc=False):
    id: str | None = None
    on_behalf_of: _Person | None = None


class Patient(Struct, gc=False):
    pseudonym: str


class _Resource(Struct, gc=False):
    type: str | None = None


class _BreakGlass(Struct, gc=False):
    used: bool = False


class _Request(Struct, gc=False):
    id: str | None = None


class _Producer(Struct, gc=False):
    epoch: str
    id: str
    seq: _Count


class Data(Struct, gc=False, kw_only=True):
    action: str | None = None
    actor: _Actor | None = None
    break_glass: _BreakGlass | None = None
    outcome: _Code | None = None
    patient: Patient | None = None
    phase: str | None = None
    producer: _Producer
    purpose_of_use: str | None = None
    request: _Request | None = None
    resource: _Resource | None = None


class Event(Struct, gc=False, kw_only=True):
    data: Data
    id: str
    source: str
    specversion: Literal["1.0"]
    tenant: str | None = None
    time: str
    traceparent: str | None = None
    type: str


# The event in a leaf, its columns not yet looked at; raises what `project` turns into BadLeaf.
decoded = msgspec.json.Decoder(Event).decode


def project(leaf: bytes) -> tuple[Any, ...]:
    """The values of PROJECTED for one leaf; raises BadLeaf when it is not a valid event."""
    try:
        return _columns(decoded(leaf))
    except (msgspec.MsgspecError, ValueError, OverflowError):
        raise BadLeaf from None


def occurred_at(event: Event) -> datetime:
    occurred = datetime.fromisoformat(event.time)
    if occurred.tzinfo is None or not 1970 <= occurred.year <= 9998:
        raise BadLeaf
    return occurred


def actor_id(data: Data) -> str | None:
    """An agent acts for a person: then the person counts."""
    actor = data.actor
    if actor is None:
        return None
    return actor.on_behalf_of.id if actor.on_behalf_of else actor.id


def _columns(event: Event) -> tuple[Any, ...]:
    data = event.data
    producer, outcome, resource, glass = data.producer, data.outcome, data.resource, data.break_glass
    tenant, type_, phase, action, code, actor, kind, purpose, maker, epoch = _repeated(
        event.tenant,
        event.type,
        data.phase,
        data.action,
        outcome.code if outcome else None,
        actor_id(data),
        resource.type if resource else None,
        data.purpose_of_use,
        producer.id,
        producer.epoch,
    )
    return (
        uuid_of(event.id),
        occurred_at(event),
        tenant,
        type_,
        phase,
        action,
        code,
        actor,
        pseudonym(data.patient),
        kind,
        purpose,
        glass.used if glass else False,
        text_of(data.request.id) if data.request else None,
        trace_id(event.traceparent),
        maker,
        epoch,
        producer.seq,
    )


@functools.lru_cache(maxsize=_KEPT)
def _repeated(
    tenant: str | None, type_: str, phase: str | None, action: str | None, outcome: str | None,
    actor: str | None, resource: str | None, purpose: str | None, producer: str, epoch: str,
) -> tuple[Any, ...]:  # fmt: skip
    """What is the same from event to event, looked at once; what is refused is looked at every time."""
    texts = (phase, action, outcome, actor, resource, purpose, producer)
    return (text_of(tenant), event_class(type_), *map(text_of, texts), uuid_of(epoch))


def event_class(name: str) -> str:
    """`org.wardmesh.audit.access.v1` -> `access`."""
    middle, _, version = name.removeprefix(_TYPE_PREFIX).rpartition(".")
    if not name.startswith(_TYPE_PREFIX) or not middle or middle == MALFORMED or version[:1] != "v":
        raise BadLeaf
    if "." in middle:
        raise BadLeaf
    return text_of(middle) or ""


def pseudonym(patient: Patient | None) -> bytes | None:
    if patient is None:
        return None
    raw = bytes.fromhex(patient.pseudonym)
    if len(raw) != 16 or raw.hex() != patient.pseudonym:  # one form only: no blanks, no capitals
        raise BadLeaf
    return raw


def trace_id(traceparent: str | None) -> str | None:
    parts = traceparent.split("-") if traceparent else []
    return text_of(parts[1]) if len(parts) >= 4 and len(parts[1]) == 32 else None


def uuid_of(text: str) -> uuid.UUID:
    value = UUID(text)  # asyncpg's own: equal to the standard one, read in a tenth of the time
    if str(value) != text:
        raise BadLeaf
    return value


def text_of(text: str | None) -> str | None:
    """PostgreSQL stores no NUL and an index entry has a limit: such an event is malformed, not a reason to stop."""
    if text is None:
        return None
    if len(text) > TEXT_BYTES or "\x00" in text or not (text.isascii() or len(text.encode()) <= TEXT_BYTES):
        raise BadLeaf
    return text
