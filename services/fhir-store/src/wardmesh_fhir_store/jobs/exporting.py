"""Carries out an export job: NDJSON files per type from one snapshot, and a manifest (ST-70)."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.database import Database
from wardmesh_fhir_store.jobs import snapshots
from wardmesh_fhir_store.jobs.importing import Ending
from wardmesh_fhir_store.jobs.leases import Lease
from wardmesh_fhir_store.jobs.members import Members
from wardmesh_fhir_store.jobs.places import Places, join
from wardmesh_fhir_store.jobs.rows import Job
from wardmesh_fhir_store.jobs.snapshots import Exported, Snapshot
from wardmesh_fhir_store.moments import instant
from wardmesh_fhir_store.store import Store

PAGE = 500
FILE_BYTES = 32 * 1024 * 1024
_ADD = text(
    """INSERT INTO job_file (job_id, number, role, url, resource_type, size, done_count, last_id, finished)
    SELECT :job, coalesce(max(number), 0) + 1, :role, :url, :kind, :size, :count, :last_id, true
    FROM job_file WHERE job_id = :job"""
)
FILES = text(
    """SELECT role, url, resource_type, done_count, last_id FROM job_file
    WHERE job_id = :job AND role IN ('output', 'deleted') ORDER BY number"""
)


class OutFile(Struct, frozen=True):
    """A file that is complete; `last_id` is the last resource in it."""

    role: str
    url: str
    kind: str
    count: int
    last_id: str


class Part(Struct, frozen=True):
    """What becomes one output file, and maybe one of deletions."""

    lines: list[bytes]
    deleted: list[str]
    last_id: str
    more: bool


class Exporting:
    """One for all datastores."""

    def __init__(self, database: Database, places: Places, file_resources: int) -> None:
        self._database = database
        self._places = places
        self._most = file_resources

    async def run(self, job: Job, store: Store, lease: Lease) -> Ending:
        """A resumed job keeps its snapshot and the files that were complete. Raises BadPlace, Lost, Fault."""
        if job.snapshot is None or job.transaction_time is None:
            snapshot = await snapshots.take(self._database, job.id, lease)
        else:
            snapshot = Snapshot(job.snapshot, job.transaction_time)
        asked: dict[str, Any] = job.request.get("bulk", {})
        members = Members(store, asked.get("level", "system"), asked.get("patients"), asked.get("filters", []))
        done = {file.kind: file.last_id for file in await files_of(self._database, job.id)}
        for kind in asked.get("types") or await snapshots.kinds(store.database, store.datastore):
            if members.covers(kind):
                await self._type(_Run(job, store, lease, snapshot, members, kind), done.get(kind, ""))
        await self._manifest(job, snapshot)
        return Ending("COMPLETED")

    async def abandon(self, job: Job) -> None:
        """The files of a bulk export are reached through its status address alone, which is gone with it.

        By what lies in the folder: the last one may not be recorded yet.
        """
        if "bulk" in job.request:
            storage = self._places.storage(folder_of(job))
            for file in await asyncio.to_thread(storage.sources, folder_of(job)):
                await asyncio.to_thread(storage.remove, file.url)

    async def _type(self, run: _Run, after: str) -> None:
        while True:
            part = await run.part(after, self._most)
            if part.lines or part.deleted:
                await self._write(run, part)
            if not part.more:
                return
            after = part.last_id

    async def _write(self, run: _Run, part: Part) -> None:
        """The file first, then the row: a crash between them writes the same file again."""
        number = 1 + sum(file.kind == run.kind for file in await files_of(self._database, run.job.id))
        folder = folder_of(run.job)
        written: list[dict[str, Any]] = []
        if part.lines:
            url = join(folder, f"{run.kind}-{number}.ndjson")
            written.append(await self._put(url, "output", b"\n".join(part.lines) + b"\n", len(part.lines)))
        if part.deleted:
            url = join(folder, f"{run.kind}-{number}-deleted.ndjson")
            body = msgspec.json.Encoder().encode_lines([_deletion(run.kind, one) for one in part.deleted])
            written.append(await self._put(url, "deleted", body, len(part.deleted)))

        async def work(connection: AsyncConnection) -> None:
            await run.lease.fence(connection)
            for values in written:
                own = {"job": run.job.id, "kind": run.kind, "last_id": part.last_id}
                await connection.execute(_ADD, own | values)

        await self._database.write(work)

    async def _put(self, url: str, role: str, body: bytes, count: int) -> dict[str, Any]:
        await asyncio.to_thread(self._places.storage(url).put, url, body)
        return {"url": url, "role": role, "size": len(body), "count": count}

    async def _manifest(self, job: Job, snapshot: Snapshot) -> None:
        body = msgspec.json.encode(manifest(await files_of(self._database, job.id), snapshot.moment))
        url = join(folder_of(job), "manifest.json")
        await asyncio.to_thread(self._places.storage(url).put, url, msgspec.json.format(body))


class _Run(Struct, frozen=True):
    """One type of one export."""

    job: Job
    store: Store
    lease: Lease
    snapshot: Snapshot
    members: Members
    kind: str

    async def part(self, after: str, most: int) -> Part:
        """Pages until the file is full or the type is at its end."""
        since: str | None = self.job.request.get("bulk", {}).get("since")
        moment = datetime.fromisoformat(since) if since else None
        lines: list[bytes] = []
        deleted: list[str] = []
        size = 0
        while len(lines) + len(deleted) < most and size < FILE_BYTES:

            async def look(connection: AsyncConnection, place: str = after) -> tuple[int, str, list[Exported]]:
                page = await snapshots.page(
                    connection, self.store.datastore, self.kind, self.snapshot, place, PAGE, moment
                )
                last = page[-1].id if page else place
                return len(page), last, await self.members.kept(connection, self.kind, page)

            count, after, kept = await self.store.database.read(look)
            await self.store.database.write(self.lease.fence)
            lines += [one.body for one in kept if one.body is not None]
            deleted += [one.id for one in kept if one.body is None and moment is not None]
            size = sum(map(len, lines))
            if count < PAGE:
                return Part(lines, deleted, after, more=False)
        return Part(lines, deleted, after, more=True)


def folder_of(job: Job) -> str:
    base = job.request["OutputDataConfig"]["S3Configuration"]["S3Uri"]
    return join(base, f"{job.datastore}-FHIR_EXPORT-{job.id}")


async def files_of(database: Database, job: str) -> list[OutFile]:
    """In the order of writing."""

    async def look(connection: AsyncConnection) -> list[OutFile]:
        return [OutFile(*row) for row in await connection.execute(FILES, {"job": job})]

    return await database.read(look)


def manifest(files: list[OutFile], moment: datetime) -> dict[str, Any]:
    """As Bulk Data has it, without what only the request knows."""
    listed: dict[str, list[dict[str, Any]]] = {"output": [], "deleted": []}
    for file in files:
        kind = file.kind if file.role == "output" else "Bundle"
        listed[file.role].append({"type": kind, "url": file.url, "count": file.count})
    return {"transactionTime": instant(moment), **listed, "error": []}


def _deletion(kind: str, identity: str) -> dict[str, Any]:
    entry = {"request": {"method": "DELETE", "url": f"{kind}/{identity}"}}
    return {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
