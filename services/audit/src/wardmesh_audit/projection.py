"""The columns of an event, derived from its leaf alone: the writer fills them, `verify` compares them."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

MALFORMED = "malformed"
_TYPE_PREFIX = "org.wardmesh.audit."
_TEXT_BYTES = 1024  # more would not fit into an index entry

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

_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class BadLeaf(Exception):
    """The bytes are not a valid event; they are kept as a malformed one."""


class _Code(Struct):
    code: str | None = None


class _Person(Struct):
    id: str | None = None


class _Actor(Struct):
    id: str | None = None
    on_behalf_of: _Person | None = None


class _Patient(Struct):
    pseudonym: str


class _Resource(Struct):
    type: str | None = None


class _BreakGlass(Struct):
    used: bool = False


class _Request(Struct):
    id: str | None = None


class _Producer(Struct):
    id: str
    epoch: str
    seq: _Count


class _Data(Struct):
    producer: _Producer
    phase: str | None = None
    action: str | None = None
    outcome: _Code | None = None
    actor: _Actor | None = None
    patient: _Patient | None = None
    resource: _Resource | None = None
    purpose_of_use: str | None = None
    break_glass: _BreakGlass | None = None
    request: _Request | None = None


class _Event(Struct):
    specversion: str
    id: str
    source: str
    type: str
    time: str
    data: _Data
    tenant: str | None = None
    traceparent: str | None = None


_decoder = msgspec.json.Decoder(_Event)


def project(leaf: bytes) -> tuple[Any, ...]:
    """The values of PROJECTED for one leaf; raises BadLeaf when it is not a valid event."""
    try:
        event = _decoder.decode(leaf)
        return _columns(event)
    except (msgspec.MsgspecError, ValueError, OverflowError):
        raise BadLeaf from None


def _columns(event: _Event) -> tuple[Any, ...]:
    data = event.data
    occurred = datetime.fromisoformat(event.time)
    if event.specversion != "1.0" or occurred.tzinfo is None or not 1970 <= occurred.year <= 9998:
        raise BadLeaf
    actor = data.actor or _Actor()
    person = actor.on_behalf_of.id if actor.on_behalf_of else actor.id
    return (
        _uuid(event.id),
        occurred,
        _text(event.tenant),
        _event_class(event.type),
        _text(data.phase),
        _text(data.action),
        _text(data.outcome.code if data.outcome else None),
        _text(person),
        _pseudonym(data.patient),
        _text(data.resource.type if data.resource else None),
        _text(data.purpose_of_use),
        data.break_glass.used if data.break_glass else False,
        _text(data.request.id if data.request else None),
        _trace_id(event.traceparent),
        _text(data.producer.id),
        _uuid(data.producer.epoch),
        data.producer.seq,
    )


def _event_class(name: str) -> str:
    """`org.wardmesh.audit.access.v1` -> `access`."""
    middle, _, version = name.removeprefix(_TYPE_PREFIX).rpartition(".")
    if not name.startswith(_TYPE_PREFIX) or not middle or middle == MALFORMED or version[:1] != "v":
        raise BadLeaf
    if "." in middle:
        raise BadLeaf
    return _text(middle) or ""


def _pseudonym(patient: _Patient | None) -> bytes | None:
    if patient is None:
        return None
    raw = bytes.fromhex(patient.pseudonym)
    if len(raw) != 16:
        raise BadLeaf
    return raw


def _trace_id(traceparent: str | None) -> str | None:
    parts = traceparent.split("-") if traceparent else []
    return _text(parts[1]) if len(parts) >= 4 and len(parts[1]) == 32 else None


def _uuid(text: str) -> uuid.UUID:
    value = uuid.UUID(text)
    if str(value) != text:
        raise BadLeaf
    return value


def _text(text: str | None) -> str | None:
    """PostgreSQL stores no NUL and an index entry has a limit: such an event is malformed, not a reason to stop."""
    if text is not None and ("\x00" in text or len(text) > _TEXT_BYTES or len(text.encode()) > _TEXT_BYTES):
        raise BadLeaf
    return text
