"""Carries out an import job: every file below its URL, the errors line by line, and a manifest (ST-69)."""

from __future__ import annotations

import asyncio
from typing import Any, BinaryIO

import msgspec
from msgspec import Raw, Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.database import Database
from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.jobs import rows
from wardmesh_fhir_store.jobs.ingest import FileState, Ingest, name_of, take_in
from wardmesh_fhir_store.jobs.leases import Lease
from wardmesh_fhir_store.jobs.places import NOT_THERE, BadPlace, Places, join
from wardmesh_fhir_store.jobs.portions import refusal
from wardmesh_fhir_store.jobs.rows import Input, Job
from wardmesh_fhir_store.store import Store

CHANGED = "The input changed after the job began."
_REFUSED = text(
    """WITH gone AS (UPDATE job_file SET failed_count = 1, finished = true WHERE job_id = :job AND number = :number)
    INSERT INTO job_error (job_id, number, line, outcome) VALUES (:job, :number, 1, :outcome)"""
)
_COUNTS = text(
    """SELECT number, url, done_count, failed_count FROM job_file WHERE job_id = :job AND role = 'input'
    ORDER BY number"""
)
_OUTCOMES = text("SELECT outcome FROM job_error WHERE job_id = :job AND number = :number ORDER BY line")


class Ending(Struct, frozen=True):
    status: str
    message: str | None = None


class Importing:
    """`longest` bytes may one line or one JSON file hold."""

    def __init__(self, database: Database, places: Places, longest: int) -> None:
        self._database = database
        self._places = places
        self._longest = longest

    async def run(self, job: Job, store: Store, lease: Lease) -> Ending:
        """Goes on where the job stopped. Raises BadPlace, Lost, Fault."""
        files = await self._files(job, lease)
        ingest = Ingest(store, job.id, lease, self._longest)
        for one in files:
            if not one.finished:
                await self._take(job, ingest, one.file, lease)
        failed = await self._report(job, store)
        return Ending("COMPLETED_WITH_ERRORS" if failed else "COMPLETED")

    async def abandon(self, job: Job) -> None:
        """What was imported stays, and nothing else was written: the report comes at the end."""

    async def _files(self, job: Job, lease: Lease) -> list[Input]:
        url = job.request["InputDataConfig"]["S3Uri"]
        sources = await asyncio.to_thread(self._places.storage(url).sources, url)
        known = await rows.inputs(self._database, job.id)
        if not known:
            if not sources:
                raise BadPlace(NOT_THERE)
            await rows.add_inputs(self._database, job.id, lease, sources)
            return await rows.inputs(self._database, job.id)
        current = {source.url: source.fingerprint for source in sources}
        if any(not one.finished and current.get(one.file.url) != one.file.fingerprint for one in known):
            raise BadPlace(CHANGED)
        return known

    async def _take(self, job: Job, ingest: Ingest, file: FileState, lease: Lease) -> None:
        storage = self._places.storage(file.url)

        async def opened(position: int) -> BinaryIO:
            return await asyncio.to_thread(storage.open, file.url, position)

        try:
            await take_in(ingest, file, opened, self._longest)
        except Fault as fault:
            if fault.status >= 500:
                raise
            outcome = refusal(name_of(file.url), 1, fault).outcome

            async def refuse(connection: AsyncConnection) -> None:
                await lease.fence(connection)
                await connection.execute(_REFUSED, {"job": job.id, "number": file.number, "outcome": outcome})

            await self._database.write(refuse)

    async def _report(self, job: Job, store: Store) -> int:
        """The error files and the manifest; written anew when a resumed job comes here again."""
        base = job.request["JobOutputDataConfig"]["S3Configuration"]["S3Uri"]
        folder = join(base, f"{job.datastore}-FHIR_IMPORT-{job.id}")

        async def look(connection: AsyncConnection) -> list[Any]:
            return list(await connection.execute(_COUNTS, {"job": job.id}))

        counts = await self._database.read(look)
        errors: list[dict[str, Any]] = []
        for number, url, _, failed in counts:
            if failed:
                errors.append({"type": "OperationOutcome", "url": join(folder, "FAILURE", f"{number}.ndjson")})
                await self._put(errors[-1]["url"], await self._outcomes(job, number))
                errors[-1] |= {"count": failed, "input": url}
        manifest = {
            "datastoreId": job.datastore,
            "jobId": job.id,
            "input": [{"url": url, "imported": done, "failed": failed} for _, url, done, failed in counts],
            "error": errors,
        }
        await self._put(join(folder, "manifest.json"), msgspec.json.format(msgspec.json.encode(manifest)))
        return sum(row[3] for row in counts)

    async def _outcomes(self, job: Job, number: int) -> bytes:
        async def look(connection: AsyncConnection) -> list[Raw]:
            found = await connection.execute(_OUTCOMES, {"job": job.id, "number": number})
            return [Raw(bytes(outcome)) for outcome in found.scalars()]

        return msgspec.json.Encoder().encode_lines(await self._database.read(look))

    async def _put(self, url: str, body: bytes) -> None:
        await asyncio.to_thread(self._places.storage(url).put, url, body)
