"""The columns of an event as COPY sends them, made from its leaf: equal bytes mean equal columns."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from wardmesh_audit.projection import (
    PROJECTED,
    BadLeaf,
    Event,
    actor_id,
    decoded,
    event_class,
    occurred_at,
    project,
    pseudonym,
    text_of,
    trace_id,
    uuid_of,
)

# Fixed ones first, those that repeat next to each other, those that differ from row to row last.
ORDER: tuple[str, ...] = (
    "occurred_at",
    "producer_seq",
    "event_id",
    "tenant",
    "event_type",
    "phase",
    "action",
    "outcome",
    "resource_type",
    "purpose",
    "break_glass",
    "actor_id",
    "producer",
    "epoch",
    "patient_ref",
    "request_id",
    "trace_id",
)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL counts from here
_NUMBERS = struct.Struct(">iqiqi").pack
_PSEUDONYM = (16).to_bytes(4, "big")
_NULL = b"\xff\xff\xff\xff"
_KEPT = 4096

Field = bytes | None


def microseconds(at: datetime) -> int:
    """As a timestamptz is stored."""
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


class Images:
    """Makes images; what repeats from event to event is encoded once."""

    def __init__(self) -> None:
        self._repeated: dict[tuple[Any, ...], bytes] = {}

    def of(self, leaf: bytes) -> bytes:
        """The bytes of all columns in ORDER, each with its length. Raises BadLeaf when `project` would.

        One exception: an id that is no canonical UUID has an image, but no row of the database can have that one.
        """
        try:
            return self._image(decoded(leaf))
        except (msgspec.MsgspecError, ValueError, OverflowError):
            raise BadLeaf from None

    def _image(self, event: Event) -> bytes:
        data = event.data
        producer, outcome, resource, patient = data.producer, data.outcome, data.resource, data.patient
        glass, request = data.break_glass, data.request
        key = (
            event.tenant,
            event.type,
            data.phase,
            data.action,
            outcome.code if outcome else None,
            resource.type if resource else None,
            data.purpose_of_use,
            glass.used if glass else False,
            actor_id(data),
            producer.id,
            producer.epoch,
        )
        repeated = self._repeated.get(key)
        if repeated is None:
            repeated = self._remember(key)
        identifier = event.id.encode()
        return b"".join(
            (
                _NUMBERS(8, microseconds(occurred_at(event)), 8, producer.seq, len(identifier)),
                identifier,
                repeated,
                _PSEUDONYM + (pseudonym(patient) or b"") if patient else _NULL,
                _text(request.id) if request else _NULL,
                _text(trace_id(event.traceparent)),
            )
        )

    def _remember(self, key: tuple[Any, ...]) -> bytes:
        tenant, type_, phase, action, outcome, resource, purpose, glass, actor, producer, epoch = key
        texts = (tenant, event_class(type_), phase, action, outcome, resource, purpose)
        parts = [_text(text) for text in texts]
        parts += [_field(bytes([glass])), _text(actor), _text(producer), _field(uuid_of(epoch).bytes)]
        if len(self._repeated) >= _KEPT:
            self._repeated.clear()
        made = self._repeated[key] = b"".join(parts)
        return made


def differing(leaf: bytes, stored: Mapping[str, Field]) -> list[str]:
    """The columns that are not what the leaf says, in their usual order. Raises BadLeaf."""
    derived = dict(zip(PROJECTED, project(leaf), strict=True))
    derived["event_id"] = str(derived["event_id"])
    return [name for name in PROJECTED if stored[name] != _raw(derived[name])]


def _raw(value: Any) -> Field:
    """A column value as COPY sends it; event ids are asked for as text, which has one form only."""
    match value:
        case None | bytes():
            return value
        case str():
            return value.encode()
        case bool():
            return bytes([value])
        case int():
            return value.to_bytes(8, "big", signed=True)
        case datetime():
            return microseconds(value).to_bytes(8, "big", signed=True)
        case uuid.UUID():
            return value.bytes
        case _:
            raise TypeError(type(value).__name__)


def _field(raw: Field) -> bytes:
    return _NULL if raw is None else len(raw).to_bytes(4, "big") + raw


def _text(text: str | None) -> bytes:
    checked = text_of(text)
    if checked is None:
        return _NULL
    raw = checked.encode()
    return len(raw).to_bytes(4, "big") + raw
