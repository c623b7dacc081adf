"""Bulk Data `$export` over the job tables: kick-off, poll, files and cancelling, at any replica (ST-70)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.control.jobs import submit
from wardmesh_fhir_store.faults import Fault, not_found
from wardmesh_fhir_store.jobs.bulk_wishes import wish_of
from wardmesh_fhir_store.jobs.exporting import files_of, manifest
from wardmesh_fhir_store.jobs.places import BadPlace, Places
from wardmesh_fhir_store.jobs.rows import ask_to_stop
from wardmesh_fhir_store.operations import Operation, Target
from wardmesh_fhir_store.reading import Reading
from wardmesh_fhir_store.store import Store
from wardmesh_fhir_store.wire import Request, Response

PATH = "bulk"
NDJSON = "application/fhir+ndjson"
JSON = "application/json"
DEFINITION = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/"
POLL_SECONDS = "1"
PART_BYTES = 256 * 1024
_FIND = text(
    """SELECT status, request, message, transaction_time,
        (SELECT coalesce(sum(done_count), 0) FROM job_file f WHERE f.job_id = j.job_id) AS done
    FROM job j WHERE job_id = :job AND datastore_id = :datastore AND kind = 'export' AND request ? 'bulk'"""
)
_FORGET = text(
    """DELETE FROM job WHERE job_id = :job AND datastore_id = :datastore
    AND status IN ('COMPLETED', 'FAILED', 'STOPPED')"""
)


class BulkPlace(Struct, frozen=True):
    """Where exports of all datastores go, and who is told of new ones."""

    places: Places
    url: str
    wake: Callable[[], None]


class Bulk:
    """Of one datastore."""

    def __init__(self, store: Store, reading: Reading, place: BulkPlace) -> None:
        self._store = store
        self._reading = reading
        self._place = place
        self.operations = (
            Operation("export", DEFINITION + "export", ("system",), self._kick_off),
            Operation("export", DEFINITION + "patient-export", ("type",), self._kick_off, ("Patient",)),
            Operation("export", DEFINITION + "group-export", ("instance",), self._kick_off, ("Group",)),
        )

    async def handle(self, request: Request, parts: list[str]) -> Response:
        """`parts` are a job and maybe the number of a file. Raises Fault."""
        if not parts or len(parts) > 2:
            raise not_found("There is no such export.")
        found = await self._find(parts[0])
        if request.method == "DELETE" and len(parts) == 1:
            return await self._cancel(parts[0])
        if request.method not in ("GET", "HEAD"):
            allowed = "GET, HEAD, DELETE" if len(parts) == 1 else "GET, HEAD"
            raise Fault(405, "not-supported", "The method is not offered here.", headers=(("Allow", allowed),))
        if len(parts) == 2:
            return await self._file(parts[0], parts[1], wanted=request.method == "GET")
        return await self._status(parts[0], found)

    async def _kick_off(self, request: Request, target: Target) -> Response:
        wish = await wish_of(self._store, self._reading, request, target)
        output = {"S3Configuration": {"S3Uri": self._place.url, "KmsKeyId": "none"}}
        asked = {"OutputDataConfig": output, "bulk": wish.kept}

        async def work(connection: AsyncConnection) -> str:
            return (await submit(connection, self._store.datastore, "export", asked)).job_id

        job = await self._store.database.write(work)
        self._place.wake()
        return Response(status=202, headers=[("Content-Location", self._store.url(PATH, job))])

    async def _find(self, job: str) -> RowMapping:
        async def look(connection: AsyncConnection) -> RowMapping | None:
            values = {"job": job, "datastore": self._store.datastore}
            return (await connection.execute(_FIND, values)).mappings().first()

        found = await self._store.database.read(look)
        if found is None or found["status"] in ("STOP_REQUESTED", "STOPPED"):
            raise not_found("There is no such export, or it was cancelled.")
        return found

    async def _status(self, job: str, found: RowMapping) -> Response:
        if found["status"] in ("SUBMITTED", "IN_PROGRESS"):
            progress = "waiting" if found["status"] == "SUBMITTED" else f"{found['done']} resources written"
            return Response(status=202, headers=[("X-Progress", progress), ("Retry-After", POLL_SECONDS)])
        if found["status"] == "FAILED":
            raise Fault(500, "exception", found["message"] or "The export failed.")
        files = await files_of(self._store.database, job)
        told: dict[str, Any] = manifest(files, found["transaction_time"])
        numbers = {file.url: str(number) for number, file in enumerate(files, start=1)}
        for listed in (told["output"], told["deleted"]):
            for one in listed:
                one["url"] = self._store.url(PATH, job, numbers[one["url"]])
        answer = {"transactionTime": told["transactionTime"], "request": found["request"]["bulk"]["request"]}
        answer |= {"requiresAccessToken": False} | {name: told[name] for name in ("output", "deleted", "error")}
        return Response(body=msgspec.json.encode(answer), media_type=JSON)

    async def _file(self, job: str, number: str, *, wanted: bool) -> Response:
        files = await files_of(self._store.database, job)
        if not number.isascii() or not number.isdigit() or not 0 < int(number[:9]) <= len(files):
            raise not_found("The export has no such file.")
        url = files[int(number[:9]) - 1].url

        try:
            reader = await asyncio.to_thread(self._place.places.storage(url).open, url, 0)
        except BadPlace:
            raise Fault(410, "not-found", "The file of the export is not there any more.") from None
        if not wanted:
            reader.close()
            return Response(headers=[("Content-Type", NDJSON)])
        return Response(parts=_parts(reader), media_type=NDJSON)

    async def _cancel(self, job: str) -> Response:
        """An export that runs stops; one that ended is forgotten with its files."""
        values = {"job": job, "datastore": self._store.datastore}
        files = await files_of(self._store.database, job)

        async def work(connection: AsyncConnection) -> bool:
            _, stopping = await ask_to_stop(connection, self._store.datastore, "export", job)
            return not stopping and bool((await connection.execute(_FORGET, values)).rowcount)

        if await self._store.database.write(work):
            for file in files:
                await asyncio.to_thread(self._place.places.storage(file.url).remove, file.url)
        return Response(status=202)


async def _parts(reader: BinaryIO) -> AsyncGenerator[bytes]:
    with reader:
        while part := await asyncio.to_thread(reader.read, PART_BYTES):
            yield part
