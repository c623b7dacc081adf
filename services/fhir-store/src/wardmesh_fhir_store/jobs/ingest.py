"""Stores the resources of a file exactly once: a portion and the place where the next begins in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import BinaryIO

import msgspec
from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.jobs.bundles import calls_of
from wardmesh_fhir_store.jobs.leases import Lease
from wardmesh_fhir_store.jobs.portions import Item, Portion, Portions, Refused, judged, refusal
from wardmesh_fhir_store.jsontext import Peek
from wardmesh_fhir_store.records import Change, Identity, lock
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.transactions import Transactions, no_reads

_ADVANCE = text(
    """UPDATE job_file SET position = :position, read_count = :line, done_count = done_count + :done,
    failed_count = failed_count + :failed, finished = :finished WHERE job_id = :job AND number = :number"""
)
_ERRORS = text(
    """INSERT INTO job_error (job_id, number, line, outcome)
    SELECT :job, :number, x.* FROM unnest(CAST(:lines AS bigint[]), CAST(:outcomes AS bytea[])) AS x"""
)
Told = Callable[[int, int], None]  # position in the file, resources stored since the last time


class FileState(Struct, frozen=True):
    """One input file of a job and how far it has come."""

    number: int
    url: str
    size: int
    fingerprint: str
    position: int = 0
    line: int = 0


def silent(_position: int, _done: int) -> None:
    """For whoever does not follow the progress."""


class Ingest:
    """Of one job; `lease` undoes what is written after the job was lost or stopped."""

    def __init__(self, store: Store, job: str, lease: Lease, longest: int, told: Told = silent) -> None:
        self._store = store
        self._job = job
        self._lease = lease
        self._longest = longest
        self._told = told

    async def lines(self, file: FileState, reader: BinaryIO) -> None:
        """NDJSON from the file's position on. The next portion is read and judged while one is written."""
        portions = Portions(self._store, name_of(file.url), reader, file.position, file.line, self._longest)
        coming = asyncio.create_task(asyncio.to_thread(portions.next))
        try:
            while (portion := await coming) is not None:
                coming = asyncio.create_task(asyncio.to_thread(portions.next))
                await self._write(file, portion)
            await self._finish(file)
        finally:
            await asyncio.gather(coming, return_exceptions=True)

    async def whole(self, file: FileState, body: bytes) -> None:
        """A JSON file: a transaction or collection is stored as one, anything else as the resource that it is."""
        try:
            if await asyncio.to_thread(_is_bundle, body):
                await self._bundle(file, body)
                return
            item = await asyncio.to_thread(judged, self._store, 1, body)
            portion = Portion([item], [], len(body), 1)
        except Fault as fault:
            if fault.status >= 500:
                raise
            portion = Portion([], [refusal(name_of(file.url), 1, fault)], len(body), 1)
        await self._write(file, portion)
        await self._finish(file)

    async def _bundle(self, file: FileState, body: bytes) -> None:
        calls = await asyncio.to_thread(calls_of, self._store, body)

        async def beside(connection: AsyncConnection) -> None:
            await self._lease.fence(connection)
            portion = Portion([], [], len(body), 1)
            await self._advance(connection, file, portion, len(calls), [], finished=True)

        await Transactions(self._store, no_reads).run(calls, representation=False, beside=beside)
        self._told(len(body), len(calls))

    async def _write(self, file: FileState, portion: Portion) -> None:
        async def work(connection: AsyncConnection) -> int:
            await self._lease.fence(connection)
            if self._store.options.referential_integrity:
                late = await self._one_by_one(connection, file, portion.items)
            else:
                await self._together(connection, portion.items)
                late = []
            done = len(portion.items) - len(late)
            await self._advance(connection, file, portion, done, [*portion.refused, *late])
            return done

        self._told(portion.position, await self._store.database.write(work))

    async def _together(self, connection: AsyncConnection, items: list[Item]) -> None:
        """An identity that comes again waits for the next round: it becomes the next version."""
        while items:
            seen: set[Identity] = set()
            now: list[Item] = []
            later: list[Item] = []
            for item in items:
                (later if (item.kind, item.id) in seen else now).append(item)
                seen.add((item.kind, item.id))
            locked = await lock(connection, self._store.datastore, [(i.kind, i.id) for i in now if i.method == "PUT"])
            changes = [
                Change(
                    type=item.kind,
                    id=item.id,
                    method=item.method,
                    members=item.members,
                    rows=item.rows,
                    current=locked.get((item.kind, item.id)),
                )
                for item in now
            ]
            await self._store.save(connection, changes)
            items = later

    async def _one_by_one(self, connection: AsyncConnection, file: FileState, items: list[Item]) -> list[Refused]:
        """Where references must hold, each line stands for itself."""
        refused: list[Refused] = []
        for item in items:
            try:
                async with connection.begin_nested():
                    await self._together(connection, [item])
            except Fault as fault:
                refused.append(refusal(name_of(file.url), item.line, fault))
        return refused

    async def _advance(
        self,
        connection: AsyncConnection,
        file: FileState,
        portion: Portion,
        done: int,
        refused: list[Refused],
        *,
        finished: bool = False,
    ) -> None:
        own = {"job": self._job, "number": file.number}
        if refused:
            lines = {"lines": [one.line for one in refused], "outcomes": [one.outcome for one in refused]}
            await connection.execute(_ERRORS, own | lines)
        counts = {"done": done, "failed": len(refused), "finished": finished}
        await connection.execute(_ADVANCE, own | counts | {"position": portion.position, "line": portion.line})

    async def _finish(self, file: FileState) -> None:
        async def work(connection: AsyncConnection) -> None:
            await self._lease.fence(connection)
            finish = text("UPDATE job_file SET finished = true WHERE job_id = :job AND number = :number")
            await connection.execute(finish, {"job": self._job, "number": file.number})

        await self._store.database.write(work)


Opened = Callable[[int], Awaitable[BinaryIO]]


async def take_in(ingest: Ingest, file: FileState, opened: Opened, longest: int) -> None:
    """One file by its suffix; a JSON file is read as a whole. Raises Fault when a Bundle is refused."""
    if not file.url.endswith(".json"):
        with await opened(file.position) as reader:
            await ingest.lines(file, reader)
        return
    with await opened(0) as reader:
        body = await asyncio.to_thread(reader.read, longest + 1)
    if len(body) > longest:
        raise Fault(413, "too-costly", "The file is larger than the store accepts.")
    await ingest.whole(file, body)


def name_of(url: str) -> str:
    return url.rsplit("/", 1)[-1]


class _Kind(Peek, frozen=True, rename="camel"):
    type: str = ""


def _is_bundle(body: bytes) -> bool:
    """Other Bundles (documents, histories, ...) are resources like any other."""
    try:
        found = msgspec.json.decode(body, type=_Kind)
    except msgspec.MsgspecError:
        return False
    return found.resource_type == "Bundle" and found.type in ("transaction", "collection", "batch")
