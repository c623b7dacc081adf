"""The columns of an event as COPY sends them, made from its leaf: equal bytes mean equal columns."""

from __future__ import annotations

import uuid
from binascii import unhexlify
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from wardmesh_audit.projection import (
    PROJECTED,
    TEXT_BYTES,
    BadLeaf,
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
    "producer",
    "epoch",
    "actor_id",
    "patient_ref",
    "request_id",
    "trace_id",
)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL counts from here
# Later ones are left to `differing`: up to here microseconds are told apart as fractions of a second.
_FIRST_YEAR, _LAST_YEAR = 1970, 2200
_NULL = b"\xff\xff\xff\xff"
_LENGTHS = [length.to_bytes(4, "big") for length in range(TEXT_BYTES + 1)]  # a longer text is an IndexError
_BOOLEAN, _UUID = _LENGTHS[1], _LENGTHS[16]
_PSEUDONYM = {16: _UUID}  # another length is a KeyError
_KEPT = 4096
# What a leaf without an image raises; TypeError: a time without a zone.
_NO_IMAGE = (msgspec.MsgspecError, ValueError, OverflowError, TypeError, LookupError, BadLeaf)
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
        self._last: tuple[Any, ...] = ()
        self._image = b""  # of the last ones

    def tail(self, leaf: bytes | memoryview, occurred: int, number: int, identifier: bytes) -> bytes | None:
        """The bytes of the TAIL columns, each with its length, of a leaf that agrees with those of HEAD, else None.

        Without a function for each column: a verification comes by millions of times. `differing` says what differs.
        """
        try:
            event = decoded(leaf)
            data, at = event.data, _instant(event.time)
            producer, outcome, resource, glass = data.producer, data.outcome, data.resource, data.break_glass
            # The seconds of either are the nearest there is, so equal if the microseconds are.
            if producer.seq != number or (at - _EPOCH).total_seconds() != occurred / 1e6:
                return None
            if event.id.encode() != identifier or not _FIRST_YEAR <= at.year < _LAST_YEAR:
                return None
            key = (
                data.action, event.type, resource and resource.type, outcome and outcome.code, data.phase,
                data.purpose_of_use, glass and glass.used, producer.epoch, producer.id, event.tenant,
            )  # fmt: skip
            if key != self._last:
                self._image, self._last = self._repeated.get(key) or self._remember(key), key
            who = whom = asked = traced = b""
            one = two = three = four = _NULL
            if (actor := data.actor) and (text := (actor.on_behalf_of or actor).id) is not None:
                who = text.encode()
                one = _LENGTHS[len(who)]
            if patient := data.patient:
                whom = unhexlify(patient.pseudonym)
                two = _PSEUDONYM[len(whom)]
                if whom.hex() != patient.pseudonym:
                    return None
            if (request := data.request) and (text := request.id) is not None:
                asked = text.encode()
                three = _LENGTHS[len(asked)]
            if (trace := event.traceparent) and len(parts := trace.split("-", 3)) == 4 and len(parts[1]) == 32:
                traced = parts[1].encode()
                four = _LENGTHS[len(traced)]
            return b"".join((self._image, one, who, two, whom, three, asked, four, traced))
        except _NO_IMAGE:
            return None

    def _remember(self, key: tuple[Any, ...]) -> bytes:
        action, type_, resource, outcome, phase, purpose, glass, epoch, producer, tenant = key
        texts = (tenant, event_class(type_), phase, action, outcome, resource, purpose)
        parts = [_text(text) for text in texts]
        parts += [_BOOLEAN + bytes([bool(glass)]), _text(producer), _UUID + uuid_of(epoch).bytes]
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
