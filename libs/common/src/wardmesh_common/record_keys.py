"""The station's small cache of lent audit keys: bounded, in memory, five minutes at most (audit.md 4.4)."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from wardmesh_common.errors import AuditUnavailable, WardmeshError
from wardmesh_common.questions import KeyAnswer, KeyQuestion
from wardmesh_common.record_seal import OpenKey, receive

TTL_SECONDS = 300.0  # a destroyed key is out of use everywhere after this time
CAPACITY = 20_000
_PER_QUESTION = 256

AskKeys = Callable[[KeyQuestion], Awaitable[KeyAnswer]]
_Name = tuple[str, str]  # tenant, patient


class KeyRing:
    """Keys by (tenant, patient); concurrent misses for one patient share one question."""

    def __init__(
        self,
        ask: AskKeys,
        *,
        ttl_seconds: float = TTL_SECONDS,
        capacity: int = CAPACITY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._ttl = min(ttl_seconds, TTL_SECONDS)
        self._capacity = capacity
        self._clock = clock
        self._kept: OrderedDict[_Name, tuple[float, OpenKey]] = OrderedDict()
        self._asked: dict[_Name, asyncio.Task[None]] = {}

    def held(self, tenant: str, patients: Iterable[str]) -> dict[str, OpenKey] | None:
        """The keys of all these patients when every one is here and fresh, else None."""
        now = self._clock()
        found: dict[str, OpenKey] = {}
        for patient in patients:
            name = (tenant, patient)
            entry = self._kept.get(name)
            if entry is None:
                return None
            if entry[0] <= now:
                del self._kept[name]
                return None
            self._kept.move_to_end(name)
            found[patient] = entry[1]
        return found

    async def lend(self, tenant: str, patients: Iterable[str]) -> dict[str, OpenKey]:
        """The keys of these patients, asked for where missing; raises AuditUnavailable without them."""
        wanted = tuple(dict.fromkeys(patients))
        self._ask_missing(tenant, wanted)
        running = {task for p in wanted if (task := self._asked.get((tenant, p)))}
        if running:
            await asyncio.gather(*(asyncio.shield(task) for task in running))
        found = self.held(tenant, wanted)
        if found is None:
            raise AuditUnavailable("The record could not be sealed.", retry_after=1)
        return found

    def _ask_missing(self, tenant: str, wanted: tuple[str, ...]) -> None:
        missing = [p for p in wanted if self.held(tenant, (p,)) is None and (tenant, p) not in self._asked]
        for start in range(0, len(missing), _PER_QUESTION):
            part = tuple(missing[start : start + _PER_QUESTION])
            task = asyncio.create_task(self._question(tenant, part))
            task.add_done_callback(_retrieve)
            for patient in part:
                self._asked[(tenant, patient)] = task

    async def _question(self, tenant: str, patients: tuple[str, ...]) -> None:
        try:
            ours = X25519PrivateKey.generate()
            question = KeyQuestion(public_key=ours.public_key().public_bytes_raw(), tenant=tenant, patients=patients)
            keys = receive(ours, await self._ask(question))
            if len(keys) != len(patients):
                raise AuditUnavailable("The record could not be sealed.", retry_after=1)
            expires = self._clock() + self._ttl
            for patient, key in zip(patients, keys, strict=True):
                self._kept[(tenant, patient)] = (expires, key)
            while len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        except (WardmeshError, InvalidTag, msgspec.MsgspecError, ValueError) as error:
            raise AuditUnavailable("The record could not be sealed.", retry_after=1) from error
        finally:
            for patient in patients:
                self._asked.pop((tenant, patient), None)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Marks the exception as seen: everyone who waits gets it, but a prefetch has nobody who waits."""
    if not task.cancelled():
        task.exception()
