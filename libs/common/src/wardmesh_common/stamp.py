"""The producer's identity, its dense counter and the one serialisation of every audit event."""

from __future__ import annotations

import functools
import os
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from wardmesh_common.clock import clock_synced
from wardmesh_common.leaf import LEAF_LIMIT, Draft, instant
from wardmesh_common.record_seal import NONCE_BYTES, OpenKey, seal

_ID_BYTES = 10
_CHANCE_BYTES = _ID_BYTES + NONCE_BYTES
_encoder = msgspec.json.Encoder(order="sorted")
_VARIANT = {f"{n:x}": f"{8 | n & 3:x}" for n in range(16)}  # the two bits that say which kind of UUID it is


def uuid7(unix_ms: int, rand: bytes) -> str:
    """A UUIDv7 in its text form from a time in milliseconds and ten random bytes."""
    when, tail = f"{unix_ms & 0xFFFFFFFFFFFF:012x}", rand.hex()
    return f"{when[:8]}-{when[8:]}-7{tail[1:4]}-{_VARIANT[tail[4]]}{tail[5:8]}-{tail[8:]}"


class Moment:
    """When the events of one call are stamped, and the chance that goes into them, asked for once: a system call."""

    __slots__ = ("_at", "_chance", "text", "unix_ms")

    def __init__(self, seconds: float, events: int) -> None:
        self.unix_ms = int(seconds * 1000)
        self.text = instant(seconds)
        self._chance = os.urandom(events * _CHANCE_BYTES)
        self._at = 0

    def chance(self) -> tuple[bytes, bytes]:
        """Fresh bytes for an id and for a seal, given out only once."""
        first = self._at
        self._at = end = first + _CHANCE_BYTES
        return self._chance[first : first + _ID_BYTES], self._chance[first + _ID_BYTES : end]


class Stamp:
    """Gives each draft its id, time, number and seal and serialises it; nobody serialises it again."""

    def __init__(self, service: str, instance: str, *, clock: Callable[[], float] = time.time) -> None:
        self.service = service
        self.producer = instance
        self.epoch = str(uuid.uuid4())
        self.next_seq = 0
        self._source = f"urn:wardmesh:{service}:{instance}"
        self._clock = clock

    def now(self) -> float:
        return self._clock()

    def moment(self, events: int) -> Moment:
        """Now, for so many events."""
        return Moment(self._clock(), events)

    def leaf(self, draft: Draft, keys: Mapping[str, OpenKey], moment: Moment | None = None) -> tuple[bytes, int, str]:
        """The leaf, its sequence number and its event id. The number is used up only when a leaf came out."""
        moment = moment or self.moment(1)
        for_id, for_seal = moment.chance()
        event_id = uuid7(moment.unix_ms, for_id)
        seq = self.next_seq
        dataschema, type_ = _names(draft.event_class)
        data: dict[str, Any] = {
            **draft.data,
            "clock": {"synced": clock_synced()},
            "patient": {"pseudonym": keys[draft.patient].pseudonym} if draft.patient and keys else None,
            "producer": {"epoch": self.epoch, "id": self.producer, "seq": seq},
        }
        if draft.actor_patient:
            data["actor"] = _with_pseudonym(data["actor"], keys.get(draft.actor_patient))
        if draft.secrets and keys:
            data["enc"] = seal(keys[draft.patient], event_id, draft.secrets, for_seal)
        event = {
            "data": data,
            "datacontenttype": "application/json",
            "dataschema": dataschema,
            "id": event_id,
            "source": self._source,
            "specversion": "1.0",
            "tenant": draft.tenant,
            "time": moment.text,
            "type": type_,
        }
        if draft.traceparent:
            event["traceparent"] = draft.traceparent
        leaf = _encoder.encode(event)
        if len(leaf) > LEAF_LIMIT:
            raise ValueError("audit event above the leaf limit")
        self.next_seq = seq + 1
        return leaf, seq, event_id


@functools.lru_cache(maxsize=64)
def _names(event_class: str) -> tuple[str, str]:
    """`dataschema` and `type`."""
    return f"schemas/{event_class}.v1.json", f"org.wardmesh.audit.{event_class}.v1"


def _with_pseudonym(actor: dict[str, Any], key: OpenKey | None) -> dict[str, Any]:
    person = key.pseudonym if key else "unidentified"
    if "on_behalf_of" in actor:
        return {**actor, "on_behalf_of": {**actor["on_behalf_of"], "id": person}}
    return {**actor, "id": person}
