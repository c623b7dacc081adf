"""Starts, stops, describes and lists import and export jobs; what carries them out is in `jobs` (HL-10, ST-71)."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.control.datastores import DatastoreControl, hash_of
from wardmesh_fhir_store.control.faults import ControlFault, conflict, invalid, not_found
from wardmesh_fhir_store.control.pages import PageTokens
from wardmesh_fhir_store.control.shapes import ListJobs, OneJob, StartExport, StartImport, moment_of
from wardmesh_fhir_store.database import Database
from wardmesh_fhir_store.datastores import Datastores
from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.jobs.places import BadPlace, Places
from wardmesh_fhir_store.jobs.rows import ask_to_stop

_COUNTS = """LEFT JOIN LATERAL (SELECT count(*) AS files, coalesce(sum(size), 0) AS bytes,
    count(*) FILTER (WHERE finished) AS done_files, coalesce(sum(done_count), 0) AS done,
    coalesce(sum(failed_count), 0) AS failed, count(*) FILTER (WHERE failed_count > 0) AS failed_files
    FROM job_file f WHERE f.job_id = j.job_id AND f.role IN ('input', 'output')) c ON true"""
_COLUMNS = "j.job_id, j.status, j.name, j.request, j.message, j.submitted, j.started, j.ended, c.*"
_INSERT = text(
    """INSERT INTO job (job_id, datastore_id, kind, status, name, client_token, request, request_hash)
    VALUES (:job_id, :datastore, :kind, 'SUBMITTED', :name, :token, CAST(:request AS jsonb), :request_hash)
    ON CONFLICT (datastore_id, kind, client_token) DO NOTHING RETURNING job_id"""
)
_BY_TOKEN = text(
    """SELECT job_id, status, request_hash FROM job
    WHERE datastore_id = :datastore AND kind = :kind AND client_token = :token"""
)
_DESCRIBE = text(
    f"""SELECT {_COLUMNS} FROM job j {_COUNTS}
    WHERE j.datastore_id = :datastore AND j.kind = :kind AND j.job_id = :job_id"""  # noqa: S608 - our own names
)
_LIST = text(
    f"""SELECT {_COLUMNS} FROM job j {_COUNTS} WHERE j.datastore_id = :datastore AND j.kind = :kind
    AND (CAST(:name AS text) IS NULL OR j.name = :name) AND (CAST(:status AS text) IS NULL OR j.status = :status)
    AND (CAST(:before AS timestamptz) IS NULL OR j.submitted < :before)
    AND (CAST(:since AS timestamptz) IS NULL OR j.submitted > :since)
    AND (CAST(:after AS timestamptz) IS NULL OR (j.submitted, j.job_id) < (:after, CAST(:after_id AS text)))
    ORDER BY j.submitted DESC, j.job_id DESC LIMIT :size"""  # noqa: S608
)
LISTS = {"import": "ImportJobPropertiesList", "export": "ExportJobPropertiesList"}
PROPERTIES = {"import": "ImportJobProperties", "export": "ExportJobProperties"}


class Submitted(Struct, frozen=True):
    job_id: str
    status: str


async def submit(
    connection: AsyncConnection,
    datastore: int,
    kind: str,
    request: dict[str, Any],
    *,
    name: str | None = None,
    token: str | None = None,
    request_hash: bytes = b"",
) -> Submitted:
    """A new job, or the one that this token made before. Raises ConflictException."""
    values = {
        "job_id": secrets.token_hex(16),
        "datastore": datastore,
        "kind": kind,
        "name": name,
        "token": token,
        "request": msgspec.json.encode(request).decode(),
        "request_hash": request_hash,
    }
    made = (await connection.execute(_INSERT, values)).scalar()
    if made is not None:
        return Submitted(made, "SUBMITTED")
    known = (await connection.execute(_BY_TOKEN, {"datastore": datastore, "kind": kind, "token": token})).one()
    if known[2] != request_hash:
        raise conflict("The client token was used for another job.")
    return Submitted(known[0], known[1])


class JobControl:
    """The jobs of every datastore."""

    def __init__(
        self,
        database: Database,
        registry: DatastoreControl,
        datastores: Datastores,
        tokens: PageTokens,
        places: Places,
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._registry = registry
        self._datastores = datastores
        self._tokens = tokens
        self._places = places
        self._wake = wake

    async def start_import(self, namespace: str, request: StartImport) -> dict[str, Any]:
        output = request.job_output_data_config
        for url in (request.input_data_config.s3_uri, output.s3_configuration.s3_uri):
            self._check(url)
        asked = {
            "InputDataConfig": request.input_data_config,
            "JobOutputDataConfig": output,
            "DataAccessRoleArn": request.data_access_role_arn,
        }
        return await self._start(namespace, "import", request, asked)

    async def start_export(self, namespace: str, request: StartExport) -> dict[str, Any]:
        self._check(request.output_data_config.s3_configuration.s3_uri)
        asked = {
            "OutputDataConfig": request.output_data_config,
            "DataAccessRoleArn": request.data_access_role_arn,
        }
        return await self._start(namespace, "export", request, asked)

    async def stop(self, namespace: str, kind: str, request: OneJob) -> dict[str, Any]:
        """Ours: AWS has no such operation. What was stored or written stays; asked again, nothing changes."""
        key = await self._key(namespace, request.datastore_id)

        async def work(connection: AsyncConnection) -> tuple[str, bool]:
            return await ask_to_stop(connection, key, kind, request.job_id)

        status, _ = await self._database.write(work)
        if not status:
            raise not_found("There is no such job.")
        self._wake()
        return {"JobId": request.job_id, "JobStatus": status, "DatastoreId": request.datastore_id}

    async def describe(self, namespace: str, kind: str, request: OneJob) -> dict[str, Any]:
        key = await self._key(namespace, request.datastore_id)
        values = {"datastore": key, "kind": kind, "job_id": request.job_id}

        async def look(connection: AsyncConnection) -> RowMapping | None:
            return (await connection.execute(_DESCRIBE, values)).mappings().first()

        found = await self._database.read(look)
        if found is None:
            raise not_found("There is no such job.")
        return {PROPERTIES[kind]: properties(kind, request.datastore_id, found)}

    async def listed(self, namespace: str, kind: str, request: ListJobs) -> dict[str, Any]:
        key = await self._key(namespace, request.datastore_id)
        listing = f"{kind}/{key}"
        wanted = msgspec.structs.replace(request, next_token=None, max_results=1)
        after = self._tokens.open(request.next_token, listing, wanted)
        values = {
            "datastore": key,
            "kind": kind,
            "name": request.job_name,
            "status": request.job_status,
            "before": None if request.submitted_before is None else moment_of(request.submitted_before),
            "since": None if request.submitted_after is None else moment_of(request.submitted_after),
            "after": datetime.fromisoformat(after[0]) if after else None,
            "after_id": after[1] if after else None,
            "size": request.max_results + 1,
        }

        async def look(connection: AsyncConnection) -> list[RowMapping]:
            return list((await connection.execute(_LIST, values)).mappings())

        rows = await self._database.read(look)
        page = rows[: request.max_results]
        answer: dict[str, Any] = {LISTS[kind]: [properties(kind, request.datastore_id, row) for row in page]}
        if len(rows) > len(page):
            place = [page[-1]["submitted"].isoformat(), page[-1]["job_id"]]
            answer["NextToken"] = self._tokens.issue(listing, wanted, place)
        return answer

    async def _start(
        self, namespace: str, kind: str, request: StartImport | StartExport, asked: dict[str, Any]
    ) -> dict[str, Any]:
        key = await self._key(namespace, request.datastore_id)
        await self._check_state(request.datastore_id, writes=kind == "import")
        if request.job_name is not None and not request.job_name.isprintable():
            raise invalid("The job name holds characters that are not allowed.")

        async def work(connection: AsyncConnection) -> Submitted:
            return await submit(
                connection,
                key,
                kind,
                asked,
                name=request.job_name,
                token=request.client_token,
                request_hash=hash_of(request),
            )

        job = await self._database.write(work)
        self._wake()
        return {"JobId": job.job_id, "JobStatus": job.status, "DatastoreId": request.datastore_id}

    async def _check_state(self, public_id: str, *, writes: bool) -> None:
        try:
            store = await self._datastores.active(public_id)
            if writes:
                store.check_writable()
        except Fault as fault:
            if fault.status == 403:
                raise ControlFault("AccessDeniedException", "The datastore is in read-only mode.") from None
            if fault.status in (404, 409):
                raise conflict("The datastore is not active.") from None
            raise

    async def _key(self, namespace: str, public_id: str) -> int:
        row = await self._registry.row(namespace, public_id)
        if row.status == "DELETED":
            raise not_found()
        return row.key

    def _check(self, url: str) -> None:
        try:
            self._places.check(url)
        except BadPlace as bad:
            raise invalid(str(bad)) from None


def properties(kind: str, public_id: str, row: RowMapping) -> dict[str, Any]:
    """As AWS shows a job; the counts of an export are ours."""
    found: dict[str, Any] = {
        "JobId": row["job_id"],
        "JobStatus": row["status"],
        "SubmitTime": row["submitted"].timestamp(),
        "DatastoreId": public_id,
        "JobProgressReport": _progress(kind, row),
    }
    found |= {name: row["request"][name] for name in row["request"] if name[:1].isupper()}
    if row["name"]:
        found["JobName"] = row["name"]
    if row["ended"]:
        found["EndTime"] = row["ended"].timestamp()
    if row["message"]:
        found["Message"] = row["message"]
    return found


def _progress(kind: str, row: RowMapping) -> dict[str, Any]:
    done, failed = int(row["done"]), int(row["failed"])
    if kind == "export":
        return {"TotalNumberOfExportedFiles": row["done_files"], "TotalNumberOfResourcesExported": done}
    report: dict[str, Any] = {
        "TotalNumberOfScannedFiles": row["files"],
        "TotalSizeOfScannedFilesInMB": round(float(row["bytes"]) / 1e6, 6),
        "TotalNumberOfImportedFiles": row["done_files"],
        "TotalNumberOfResourcesScanned": done + failed,
        "TotalNumberOfResourcesImported": done,
        "TotalNumberOfResourcesWithCustomerError": failed,
        "TotalNumberOfFilesReadWithCustomerError": row["failed_files"],
    }
    if row["started"] and row["ended"]:
        seconds = max((row["ended"] - row["started"]).total_seconds(), 0.001)
        report["Throughput"] = round(done / seconds, 1)
    return report
