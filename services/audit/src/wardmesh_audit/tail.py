"""Follows the AUDIT stream with a consumer that leaves nothing behind, in order and without a hole."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator

from msgspec import Struct
from nats.errors import Error as NatsError

from wardmesh_audit.jetstream import JetStreamError, api, last_sequence
from wardmesh_audit.puller import Puller
from wardmesh_audit.streams import AUDIT
from wardmesh_common.lean import LeanClient

_SECOND = 1_000_000_000


class Published(Struct, frozen=True):
    index: int
    leaf: bytes


class Hole(Exception):
    """An index is missing in the stream: an alarm, not a reason to read on quietly."""

    def __init__(self, index: int) -> None:
        super().__init__(f"index {index} is missing in the stream")


async def follow(nc: LeanClient, start: int) -> AsyncIterator[Published]:
    """Events from index `start` on, for ever; negative: so many before the end. Raises Hole."""
    if start < 0:
        start = max(0, await last_sequence(nc, AUDIT) + start)
    name = f"tail-{secrets.token_hex(4)}"
    config = {
        "name": name,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": start + 1,
        "ack_policy": "none",
        "replay_policy": "instant",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": 60 * _SECOND,
    }
    await api(nc, f"CONSUMER.CREATE.{AUDIT}.{name}", {"stream_name": AUDIT, "config": config})
    puller = Puller(nc, AUDIT, name, acks=False)
    try:
        while True:
            for message in await puller.take(256, 0.0):
                if message.stream_seq - 1 != start:
                    raise Hole(start)
                yield Published(start, message.body)
                start += 1
    finally:
        puller.stop()
        with contextlib.suppress(JetStreamError, NatsError, OSError):  # it goes by itself when nobody asks any more
            await api(nc, f"CONSUMER.DELETE.{AUDIT}.{name}")
