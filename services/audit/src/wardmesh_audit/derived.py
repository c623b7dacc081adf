"""Events that the ledger derives from what it holds: pure functions of stored rows, so every replica makes the same."""

from __future__ import annotations

import hashlib
import uuid
from datetime import datetime
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from wardmesh_audit.counters import NO_EPOCH
from wardmesh_common.contracts import RECORD
from wardmesh_common.leaf import instant
from wardmesh_common.stamp import uuid7

_encoder = msgspec.json.Encoder(order="sorted")
_PUBLISH_SECONDS = 5.0


class Derived(Struct, frozen=True):
    """One such event: the same bytes whoever makes it, so that the ledger keeps it once."""

    event_id: uuid.UUID
    leaf: bytes


class Requester(Protocol):
    """The part of the NATS client that is used here."""

    async def request(
        self, subject: str, payload: bytes = b"", timeout: float = 0.5, *, headers: dict[str, Any] | None = None
    ) -> Any: ...


class NotStored(OSError):
    """The stream did not take a derived event; it is tried again."""


def derive(event_class: str, key: str, at: datetime, data: dict[str, Any], **envelope: str) -> Derived:
    """`key` says what the event is about and from what it follows: it makes the id."""
    digest = hashlib.sha256(key.encode()).digest()
    event_id = uuid7(int(at.timestamp() * 1000), digest[:10])
    event = {
        "data": {
            "patient": None,
            **data,
            "clock": {"synced": False},  # its time is taken from the row it follows from
            "producer": {"epoch": str(NO_EPOCH), "id": "ledger", "seq": 0},
        },
        "datacontenttype": "application/json",
        "dataschema": f"schemas/{event_class}.v1.json",
        "id": event_id,
        "source": "urn:wardmesh:audit:ledger",
        "specversion": "1.0",
        "tenant": "default",
        "time": instant(at.timestamp()),
        "type": f"org.wardmesh.audit.{event_class}.v1",
        **envelope,
    }
    return Derived(uuid.UUID(event_id), _encoder.encode(event))


def status(key: str, at: datetime, reason: str, facts: dict[str, Any]) -> Derived:
    """An audit_status event; facts hold numbers and codes only."""
    data: dict[str, Any] = {
        "action": "audit_status",
        "actor": {"id": "audit", "type": "service"},
        "facts": facts,
        "outcome": {"code": "success", "reason": reason},
        "phase": "outcome",
    }
    return derive("audit_status", key, at, data)


def unterminated(event_id: uuid.UUID, at: datetime, leaf: bytes) -> Derived:
    """The end of an intent that has none: its station died before it could say how the action went."""
    intent = msgspec.json.decode(leaf, type=dict[str, Any])
    data = {k: v for k, v in intent["data"].items() if k not in ("enc", "clock", "producer")}
    data["outcome"] = {"code": "unterminated", "reason": "no_outcome"}
    data["phase"] = "outcome"
    data["corrects"] = str(event_id)
    event_class = str(intent["type"]).split(".")[3]
    envelope = {key: intent[key] for key in ("tenant", "traceparent") if key in intent}
    return derive(event_class, f"unterminated\x1f{event_id}", at, data, **envelope)


async def publish(nc: Requester, log_id: int, event: Derived) -> None:
    """Into the stream like any other event. Raises NotStored, or the client's errors when nobody answers."""
    headers = {"Nats-Msg-Id": f"derived.{log_id}.{event.event_id}"}
    answer = await nc.request(f"{RECORD}.{log_id}", event.leaf, timeout=_PUBLISH_SECONDS, headers=headers)
    if b'"error"' in answer.data:
        raise NotStored("the stream refused a derived event")
