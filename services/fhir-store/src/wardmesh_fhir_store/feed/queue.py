"""The outbox as the publisher reads it: one reader at a time, rows leave when the stream has them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg

from wardmesh_common.contracts import EVENT_VERSION_COMMITTED, encode
from wardmesh_common.questions import VersionCommitted
from wardmesh_fhir_store.feed.sender import Message

TURN = 0x4665_6564  # the session that holds this lock publishes
SECONDS = 10
BATCH = 500  # the server takes 1,000 in one batch
# Up to the oldest transaction still running (fhir.md §4.2). The order of sequences is that of each resource's
# versions, because their writers lock its row; a transaction's own number says nothing about that.
_READ = """SELECT o.sequence, d.public_id, o.resource_type, o.resource_id, o.version, o.method, o.happened,
    o.transaction_id < pg_snapshot_xmin(pg_current_snapshot()) AS settled
    FROM outbox o JOIN datastore d USING (datastore_id) ORDER BY o.sequence LIMIT $1"""
_REMOVE = "DELETE FROM outbox WHERE sequence = ANY($1::bigint[])"


class Queue:
    """`key` makes ids of messages that mean nothing to whoever reads headers."""

    def __init__(self, connection: Any, key: bytes) -> None:
        self._connection = connection
        self._key = key

    async def take_turn(self) -> bool:
        """Kept until the connection ends, however it ends."""
        return bool(await self._connection.fetchval("SELECT pg_try_advisory_lock($1)", TURN))

    async def next(self) -> tuple[list[int], list[Message]]:
        """The oldest events that may go, and the rows they are."""
        rows = settled(await self._connection.fetch(_READ, BATCH))
        return [row["sequence"] for row in rows], [self._message(row) for row in rows]

    async def remove(self, sequences: Sequence[int]) -> None:
        await self._connection.execute(_REMOVE, sequences)

    def _message(self, row: Any) -> Message:
        happened: datetime = row["happened"]
        event = VersionCommitted(
            datastore=row["public_id"],
            type=row["resource_type"],
            id=row["resource_id"],
            version=row["version"],
            method=row["method"],
            at=happened.timestamp(),
        )
        body = encode(event)
        name = hmac.new(self._key, b"%d." % row["sequence"] + body, hashlib.sha256).hexdigest()[:32]
        return Message(f"{EVENT_VERSION_COMMITTED}.{event.datastore}.{event.type}", name, body)


def settled(rows: Sequence[Any]) -> list[Any]:
    """Without what may not go yet, and without what would overtake it: versions of one resource keep their order."""
    held: set[tuple[str, str, str]] = set()
    found: list[Any] = []
    for row in rows:
        identity = row["public_id"], row["resource_type"], row["resource_id"]
        if row["settled"] and identity not in held:
            found.append(row)
        else:
            held.add(identity)
    return found


@asynccontextmanager
async def queue_at(url: str, key: bytes) -> AsyncGenerator[Queue]:
    """On a connection of its own: the pool is for requests. Raises what asyncpg raises."""
    connection: Any = await asyncpg.connect(url, timeout=SECONDS, command_timeout=SECONDS)
    try:
        yield Queue(connection, key)
    finally:
        connection.terminate()  # also a connection that hangs gives the turn back
