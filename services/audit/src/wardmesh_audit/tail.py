"""Follows the AUDIT stream with a consumer that leaves nothing behind, in order and without a hole."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator

from msgspec import Struct
from nats.errors import Error as NatsError

from wardmesh_audit.jetstream import JetStreamError, api, last_sequence
from wardmesh_audit.puller import Pulled, Puller
from wardmesh_audit.streams import audit_stream
from wardmesh_common.lean import LeanClient

_SECOND = 1_000_000_000
_BATCH = 256
_QUIET_SECONDS = 5.0  # after so much silence the server is asked whether the consumer is still there


class Published(Struct, frozen=True):
    index: int
    leaf: bytes


class Hole(Exception):
    """Indices are missing in the stream: an alarm, not a reason to read on quietly."""

    def __init__(self, index: int, found: int) -> None:
        super().__init__(f"index {index} is missing in the stream")
        self.index = index
        self.found = found  # the next one that is there


async def follow(nc: LeanClient, start: int, log_id: int = 0) -> AsyncIterator[Published]:
    """Events from index `start` on, for ever; negative: so many before the end. Raises Hole."""
    if start < 0:
        start = max(0, await last_sequence(nc, audit_stream(log_id)) + start)
    async with contextlib.aclosing(batches(nc, log_id, start)) as found:
        async for messages in found:
            for message in messages:
                yield Published(message.stream_seq - 1, message.body)


async def batches(nc: LeanClient, log_id: int, start: int) -> AsyncGenerator[list[Pulled]]:
    """The same by what is there at once; an empty list now and then when nothing comes.

    Raises Hole, and JetStreamError when the consumer is gone because the broker was started again.
    """
    stream, name = audit_stream(log_id), f"tail-{secrets.token_hex(4)}"
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
    await api(nc, f"CONSUMER.CREATE.{stream}.{name}", {"stream_name": stream, "config": config})
    puller = Puller(nc, stream, name, acks=False)
    try:
        while True:
            messages: list[Pulled] = []
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_QUIET_SECONDS):
                    messages = await puller.take(_BATCH, 0.0)
            if not messages:
                await api(nc, f"CONSUMER.INFO.{stream}.{name}")
            for message in messages:
                if message.stream_seq - 1 != start:
                    raise Hole(start, message.stream_seq - 1)
                start += 1
            yield messages
    finally:
        puller.stop()
        with contextlib.suppress(JetStreamError, NatsError, OSError):  # it goes by itself when nobody asks any more
            await api(nc, f"CONSUMER.DELETE.{stream}.{name}")
