"""The columns of an event as COPY sends them, made from its leaf: equal bytes mean equal columns."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from wardmesh_audit.projection import (
    PROJECTED,
    TEXT_BYTES,
    BadLeaf,
    Event,
    decoded,
    event_class,
    project,
    text_of,
    uuid_of,
)

# Of every row of a valid event these have one length only, so they are cut together, before the leaf.
HEAD: tuple[str, ...] = ("occurred_at", "producer_seq", "event_id")
# Those that repeat from row to row next to each other, those that differ last.
TAIL: tuple[str, ...] = (
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
# Instants a leaf may hold whatever its zone; of those at the edge `differing` decides.
_FIRST, _LAST = (int((datetime(year, 1, 2, tzinfo=UTC) - _EPOCH).total_seconds()) * 1_000_000 for year in (1970, 9998))
_NULL = b"\xff\xff\xff\xff"
_LENGTHS = [length.to_bytes(4, "big") for length in range(TEXT_BYTES + 1)]  # a longer text is an IndexError
_NONE = len(_LENGTHS)
_KEPT = 4096
# What a leaf without an image raises; TypeError: a time without a zone.
_NO_IMAGE = (msgspec.MsgspecError, ValueError, OverflowError, TypeError, IndexError, BadLeaf)
_instant = datetime.fromisoformat

Field = bytes | None


def microseconds(at: datetime) -> int:
    """As a timestamptz is stored."""
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


class Images:
    """Makes images; what repeats from event to event is encoded once."""

    def __init__(self) -> None:
        self._repeated: dict[tuple[Any, ...], bytes] = {}

    def tail(self, leaf: bytes, occurred: int, number: int, identifier: bytes) -> bytes | None:
        """The bytes of the TAIL columns, each with its length, of a leaf that agrees with those of HEAD.

        None when it does not, or is no valid event: who wants to know which, asks `differing`.
        """
        try:
            event = decoded(leaf)
            since = _instant(event.time) - _EPOCH
            if (
                (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds != occurred
                or event.id.encode() != identifier
                or event.data.producer.seq != number
                or event.specversion != "1.0"
                or not _FIRST <= occurred < _LAST
            ):
                return None
            return self._tail(event)
        except _NO_IMAGE:
            return None

    def _tail(self, event: Event) -> bytes:
        """Without a function for each column: a verification comes by millions of times."""
        data, trace = event.data, event.traceparent
        actor, glass, outcome, patient = data.actor, data.break_glass, data.outcome, data.patient
        producer, request, resource = data.producer, data.request, data.resource
        key = (
            producer.epoch,
            actor and (actor.on_behalf_of or actor).id,
            data.action,
            event.type,
            outcome and outcome.code,
            resource and resource.type,
            data.phase,
            data.purpose_of_use,
            glass is not None and glass.used,
            event.tenant,
            producer.id,
        )
        whom = asked = traced = _NULL
        if patient:
            raw = bytes.fromhex(patient.pseudonym)
            whom = _LENGTHS[16 if len(raw) == 16 else _NONE] + raw
        if request and request.id is not None:
            raw = request.id.encode()
            asked = _LENGTHS[len(raw)] + raw
        if trace:
            parts = trace.split("-", 3)
            if len(parts) == 4 and len(parts[1]) == 32:
                raw = parts[1].encode()
                traced = _LENGTHS[len(raw)] + raw
        return b"".join((self._repeated.get(key) or self._remember(key), whom, asked, traced))

    def _remember(self, key: tuple[Any, ...]) -> bytes:
        epoch, actor, action, type_, outcome, resource, phase, purpose, glass, tenant, producer = key
        texts = (tenant, event_class(type_), phase, action, outcome, resource, purpose)
        parts = [_text(text) for text in texts]
        parts += [_LENGTHS[1] + bytes([glass]), _text(actor), _text(producer), _LENGTHS[16] + uuid_of(epoch).bytes]
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


def _text(text: str | None) -> bytes:
    text_of(text)
    if text is None:
        return _NULL
    raw = text.encode()
    return _LENGTHS[len(raw)] + raw
