"""Task ids that are the task: what it is, sealed for whoever began it, so any replica answers and nothing is kept."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec
from mcp.server.request_state import AESGCMRequestStateCodec, InvalidRequestState

from wardmesh_gateway.mcp_tasks import Json, moment


class Begun(Protocol):
    """What every task knows of itself."""

    @property
    def principal(self) -> str: ...  # digest of who asked

    @property
    def started(self) -> float: ...


T = TypeVar("T", bound=Begun)


class TaskIds(Generic[T]):
    """Tasks of one kind. `label` keeps the kinds apart: an id of one is none of another."""

    def __init__(
        self,
        kind: type[T],
        keys: Sequence[bytes],
        label: bytes,
        *,
        life_seconds: int,
        poll_ms: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._codec = AESGCMRequestStateCodec([hmac.digest(key, label, hashlib.sha256) for key in keys])
        self._life, self._poll, self.clock = life_seconds, poll_ms, clock

    def seal(self, task: T) -> str:
        return self._codec.seal(msgspec.msgpack.encode(task))

    def open(self, task_id: str, principal: str) -> T | None:
        """None for what is not ours, over, or somebody else's: all look the same outside."""
        try:
            task = self._decoder.decode(self._codec.unseal(task_id))
        except (InvalidRequestState, msgspec.DecodeError):
            return None
        mine = hmac.compare_digest(task.principal.encode(), principal.encode())
        return task if mine and self.clock() < task.started + self._life else None

    def envelope(self, task_id: str, task: T) -> Json:
        started = moment(task.started)
        return {
            "taskId": task_id,
            "createdAt": started,
            "lastUpdatedAt": started,
            "ttlMs": self._life * 1000,
            "pollIntervalMs": self._poll,
        }
