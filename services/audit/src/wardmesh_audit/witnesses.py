"""The log's side of the witnesses: asks each for a cosignature of a new checkpoint, and for the newest it has seen."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Callable, Sequence

import aiohttp
from msgspec import Struct

from wardmesh_audit.cosignature import WitnessAddress, WitnessKey, cosigned
from wardmesh_audit.note import (
    BadNote,
    BadSignature,
    Checkpoint,
    UnknownKey,
    Verifier,
    open_note,
    parse_checkpoint,
    split_note,
)
from wardmesh_audit.signing import Prove
from wardmesh_audit.witness import Contradicted, log_path, submission_text

ASK_SECONDS = 5.0
NEWEST_SECONDS = 2.0
PAUSE_SECONDS = 10.0  # a witness that did not answer is not asked again at once: the log must not limp with it
UNCOSIGNED_SECONDS = 900.0
_TRIES = 3
_MAX_ANSWER = 64 * 1024


class WitnessStatus(Struct):
    """What is known of one witness; shown in the status of the ledger."""

    name: str
    size: int = 0
    cosigned_at: float = 0.0
    failure: str = ""


class Witnesses:
    """All configured witnesses. Without any, nothing is cosigned and nothing is missed."""

    def __init__(
        self,
        addresses: Sequence[WitnessAddress],
        verifiers: Sequence[Verifier],
        session: aiohttp.ClientSession,
        *,
        clock: Callable[[], float] = time.time,
        ask_seconds: float = ASK_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._addresses = list(addresses)
        self._verifiers = list(verifiers)
        self._session = session
        self._clock = clock
        self._ask_seconds = ask_seconds
        self._pause = pause_seconds
        self._again: dict[str, float] = {}
        self._since = clock()
        self.states = {address.name: WitnessStatus(address.name) for address in addresses}

    def __len__(self) -> int:
        return len(self._addresses)

    @property
    def overdue(self) -> bool:
        """No cosignature for a quarter of an hour although there are witnesses: somebody has to look."""
        newest = max((state.cosigned_at for state in self.states.values()), default=0.0)
        return bool(self._addresses) and self._clock() - max(newest, self._since) > UNCOSIGNED_SECONDS

    def summary(self) -> str:
        states = (f"{s.name} cosigned {s.size}{': ' + s.failure if s.failure else ''}" for s in self.states.values())
        return ", ".join(states)

    async def cosign(self, note: str, prove: Prove) -> str:
        """The cosignature lines of those who answered in time. Raises Contradicted."""
        size = parse_checkpoint(split_note(note)[0]).size
        asked = [address for address in self._addresses if self._due(address)]
        proofs = _Proofs(prove)
        tasks = [asyncio.create_task(self._ask(address, note, size, proofs)) for address in asked]
        try:
            return "".join([await task for task in tasks])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def newest(self, origin: str) -> Checkpoint | None:
        """The largest checkpoint of this log that a reachable witness has cosigned."""
        asked = [address for address in self._addresses if self._due(address)]
        found = await asyncio.gather(*(self._seen(address, origin) for address in asked))
        return max((each for each in found if each is not None), key=lambda each: each.size, default=None)

    async def _ask(self, address: WitnessAddress, note: str, size: int, proofs: _Proofs) -> str:
        state = self.states[address.name]
        try:
            async with asyncio.timeout(self._ask_seconds):
                lines = await self._submit(address, state, note, size, proofs)
        except (TimeoutError, aiohttp.ClientError, OSError, BadNote, BadSignature, UnicodeDecodeError) as error:
            self._failed(state, type(error).__name__)
            return ""
        if lines:
            state.size, state.cosigned_at, state.failure = size, self._clock(), ""
        return lines

    async def _submit(
        self, address: WitnessAddress, state: WitnessStatus, note: str, size: int, proofs: _Proofs
    ) -> str:
        old = min(state.size, size)
        for _ in range(_TRIES):
            body = submission_text(old, await proofs.lines(old, size), note).encode()
            async with self._session.post(f"{address.url}/add-checkpoint", data=body) as answer:
                text = (await answer.content.read(_MAX_ANSWER)).decode()
            if answer.status == 200:
                return _own_line(note, text, address.key)
            if answer.status == 422:
                raise Contradicted(address.name, recorded=old, fork=True)
            if answer.status != 409:
                self._failed(state, f"refused with {answer.status}")
                return ""
            recorded = _size(text)
            if recorded > size or recorded == old:
                raise Contradicted(address.name, recorded=recorded, fork=recorded == old)
            old = recorded
        self._failed(state, "somebody else submits at the same time")
        return ""

    async def _seen(self, address: WitnessAddress, origin: str) -> Checkpoint | None:
        state = self.states[address.name]
        try:
            async with (
                asyncio.timeout(NEWEST_SECONDS),
                self._session.get(address.url + log_path(origin)) as answer,
            ):
                text = (await answer.content.read(_MAX_ANSWER)).decode()
            if answer.status != 200:
                return None
            checkpoint = parse_checkpoint(open_note(text, self._verifiers))
            if address.name not in cosigned(text, [address.key]) or checkpoint.origin != origin:
                raise UnknownKey("the witness answered for something else")
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            self._failed(state, type(error).__name__)
            return None
        except (BadNote, BadSignature, UnknownKey):
            self._failed(state, "its newest checkpoint is not what it should be")
            return None
        return checkpoint

    def _due(self, address: WitnessAddress) -> bool:
        return self._clock() >= self._again.get(address.name, 0.0)

    def _failed(self, state: WitnessStatus, what: str) -> None:
        state.failure = what
        self._again[state.name] = self._clock() + self._pause


def _own_line(note: str, answer: str, key: WitnessKey) -> str:
    """The one line of this witness out of its answer, checked; whatever else it sent is ignored."""
    for line in answer.splitlines(keepends=True):
        if line.startswith(f"— {key.name} ") and key.name in cosigned(note + line, [key]):
            return line
    raise BadSignature("the answer holds no cosignature of this witness")


def _size(text: str) -> int:
    digits = text.strip()
    if not digits.isascii() or not digits.isdigit() or len(digits) > 19:
        raise BadNote("the witness did not say its size")
    return int(digits)


class _Proofs:
    """Consistency proofs to one checkpoint, made one at a time and only once: they share a database session."""

    def __init__(self, prove: Prove) -> None:
        self._prove = prove
        self._turn = asyncio.Lock()
        self._made: dict[int, list[str]] = {}

    async def lines(self, old: int, size: int) -> list[str]:
        if not 0 < old < size:
            return []
        async with self._turn:
            if old not in self._made:
                self._made[old] = [b64encode(part).decode() for part in await self._prove(old, size)]
            return self._made[old]
