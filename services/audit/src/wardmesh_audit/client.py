"""Consumes the AUDIT stream with plain nats-py: every index once in order, verified against signed checkpoints."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from base64 import b64encode
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

from wardmesh_audit.client_cursor import BadCursor, Cursor, begin_at, load, save
from wardmesh_audit.client_trust import Forked, TooFewWitnesses, Trust, VerifiedTree
from wardmesh_audit.note import BadSignature, Checkpoint, UnknownKey
from wardmesh_audit.proof import BadProof

BATCH = 256
WAIT_SECONDS = 1.0
PAUSE_SECONDS = 0.5
MAX_UNVERIFIED = 1_000_000
_PREFIX = "org.wardmesh.audit."


class Gap(Exception):
    """Indices are missing in the stream: lost, removed or aged out. An alarm; nothing behind it is delivered."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(f"indices {first} to {last} are missing in the stream")
        self.first = first
        self.last = last


class BadLeaf(Exception):
    """A message is not what its header says: the payload has another hash, or the index is not its place."""

    def __init__(self, index: int) -> None:
        super().__init__(f"the event at index {index} is not what its header says")
        self.index = index


class Unverified(Exception):
    """More events than allowed have arrived without a checkpoint that covers them."""


class Event(Struct, frozen=True):
    """One event; `leaf` are the exact bytes that were signed."""

    index: int
    leaf: bytes
    subject: str
    stored_ms: int  # when the stream took it: no evidence, but all that a malformed event has
    headers: dict[str, str] = {}

    @property
    def type(self) -> str:
        """`access`, `write`, ...; `malformed` for bytes that are no event."""
        return self.subject.split(".")[3]

    def json(self) -> dict[str, Any]:
        """Raises msgspec.DecodeError for a malformed event."""
        return msgspec.json.decode(self.leaf, type=dict[str, Any])


class AuditConsumer:
    """One consumer of one log. The place is kept in `cursor_file`, which moves only by `commit`."""

    def __init__(
        self,
        nc: Client,
        name: str,
        *,
        cursor_file: str | Path,
        log_keys: Sequence[str],
        witness_keys: Sequence[str] = (),
        quorum: int = 0,
        log: int = 0,
        batch: int = BATCH,
        verified_only: bool = False,
        max_unverified: int = MAX_UNVERIFIED,
    ) -> None:
        self._js = nc.jetstream()
        self._name = name
        self._path = Path(cursor_file)
        self._trust = Trust(log_keys, witness_keys, quorum)
        self._log = log
        self._stream = f"AUDIT_{log}" if log else "AUDIT"
        self._batch = batch
        self._verified_only = verified_only
        self._max_unverified = max_unverified
        cursor = load(self._path, log)
        self._tree = VerifiedTree(cursor)
        self._next = cursor.next  # first index to hand out
        self._held: list[Event] = []
        self._waiting: tuple[Checkpoint, str] | None = None

    @property
    def verified(self) -> int:
        """So many events are known to be exactly what was signed."""
        return self._tree.verified

    async def batches(self) -> AsyncGenerator[list[Event]]:
        """Events in order, for ever. Raises Gap, BadLeaf, Forked, Unverified, BadSignature or UnknownKey."""
        while True:
            try:
                subscription = await self._subscribe()
                try:
                    async for messages in _fetched(subscription, self._batch):
                        if not (await self._take(messages) if messages else await self._still_there()):
                            break
                        if ready := await self._ready():
                            yield ready
                finally:
                    with contextlib.suppress(NatsError):
                        await subscription.unsubscribe()
            except (NatsError, TimeoutError):
                await asyncio.sleep(PAUSE_SECONDS)  # the broker is away or restarts: go on from where we are

    def commit(self, batch: Sequence[Event]) -> None:
        """After your own commit: what is in the batch will not be delivered again."""
        if batch:
            save(self._path, self._tree.cursor(batch[-1].index + 1))

    async def _subscribe(self) -> JetStreamContext.PullSubscription:
        with contextlib.suppress(NotFoundError):
            await self._js.delete_consumer(self._stream, self._name)
        config = ConsumerConfig(
            name=self._name,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self._tree.received + 1,
            ack_policy=AckPolicy.NONE,
            mem_storage=True,
            inactive_threshold=300.0,
        )
        await self._js.add_consumer(self._stream, config)
        return await self._js.pull_subscribe_bind(consumer=self._name, stream=self._stream)

    async def _take(self, messages: list[Msg]) -> bool:
        """False when the client library lost messages that the stream still has: then it has to be asked again."""
        for message in messages:
            event = _event(message)
            expected = self._tree.received
            if event.index < expected:
                continue
            if event.index > expected:
                await self._assert_gone(expected, event.index - 1)
                return False
            self._tree.add(hashlib.sha256(b"\x00" + event.leaf).digest())
            if event.index >= self._next:
                self._held.append(event)
        return True

    async def _still_there(self) -> bool:
        """Nothing came: is that because there is nothing? Raises Forked when the stream has become shorter."""
        state = (await self._js.stream_info(self._stream)).state
        if state.last_seq < self._tree.received:
            raise Forked("the stream is shorter than what was received from it")
        await self._js.consumer_info(self._stream, self._name)  # gone after a restart of the broker: we make it again
        return True

    async def _assert_gone(self, first: int, last: int) -> None:
        try:
            await self._js.get_msg(self._stream, seq=first + 1)
        except NotFoundError:
            raise Gap(first, last) from None

    async def _ready(self) -> list[Event]:
        await self._confirm()
        limit = self._tree.verified if self._verified_only else self._tree.received
        ready = [event for event in self._held if event.index < limit]
        self._held = self._held[len(ready) :]
        if ready:
            self._next = ready[-1].index + 1
        return ready

    async def _confirm(self) -> None:
        """Confirms the checkpoint we wait for, then looks for a newer one."""
        if self._waiting is None:
            self._waiting = await self._newest()
        if self._waiting is not None and self._tree.confirm(*self._waiting, self._log):
            self._waiting = None
        if self._tree.received - self._tree.verified > self._max_unverified:
            raise Unverified("no checkpoint covers the events of the stream")

    async def _newest(self) -> tuple[Checkpoint, str] | None:
        try:
            message = await self._js.get_last_msg("AUDIT_CHECKPOINT", f"audit.checkpoint.{self._log}")
        except NotFoundError:
            return None
        note = (message.data or b"").decode(errors="replace")
        try:
            return self._trust.checkpoint(note), note
        except TooFewWitnesses:
            return None  # a later one will be cosigned again


async def _fetched(subscription: JetStreamContext.PullSubscription, batch: int) -> AsyncGenerator[list[Msg]]:
    while True:
        try:
            messages = await subscription.fetch(batch, timeout=WAIT_SECONDS)
        except TimeoutError:
            messages = []
        yield messages


def _event(message: Msg) -> Event:
    headers = dict(message.headers or {})
    index = message.metadata.sequence.stream - 1
    digest = b64encode(hashlib.sha256(b"\x00" + message.data).digest()).decode()
    if headers.get("Audit-Log-Index") != str(index) or headers.get("Audit-Leaf-Hash") != digest:
        raise BadLeaf(index)
    stored_ms = round(message.metadata.timestamp.timestamp() * 1000)
    return Event(index, message.data, message.subject, stored_ms, headers)


__all__ = [
    "AuditConsumer",
    "BadCursor",
    "BadLeaf",
    "BadProof",
    "BadSignature",
    "Cursor",
    "Event",
    "Forked",
    "Gap",
    "TooFewWitnesses",
    "Trust",
    "UnknownKey",
    "Unverified",
    "begin_at",
]
