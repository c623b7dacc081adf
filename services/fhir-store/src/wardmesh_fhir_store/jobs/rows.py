"""Jobs as rows: taken under a lease, ended once, and the files that belong to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.database import Database
from wardmesh_fhir_store.jobs.ingest import FileState
from wardmesh_fhir_store.jobs.leases import Lease
from wardmesh_fhir_store.jobs.places import Source

_CLAIM = text(
    """UPDATE job j SET worker = :worker, lease_until = now() + make_interval(secs => :seconds),
        status = CASE j.status WHEN 'SUBMITTED' THEN 'IN_PROGRESS' ELSE j.status END,
        started = coalesce(j.started, now())
    FROM datastore d WHERE d.datastore_id = j.datastore_id AND j.job_id = (SELECT job_id FROM job
        WHERE kind IN ('import', 'export') AND status IN ('SUBMITTED', 'IN_PROGRESS', 'STOP_REQUESTED')
        AND (lease_until IS NULL OR lease_until < now())
        ORDER BY submitted, job_id LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING j.job_id, j.kind, j.status, j.request, d.public_id, CAST(j.snapshot AS text), j.transaction_time"""
)
_END = text(
    """UPDATE job SET status = :status, message = :message, ended = now(), worker = NULL, lease_until = NULL
    WHERE job_id = :job"""
)
# Only the worker that still holds it, or nobody when the worker is gone.
_STOP = text(
    """UPDATE job SET status = 'STOPPED', ended = now(), worker = NULL, lease_until = NULL
    WHERE job_id = :job AND status = 'STOP_REQUESTED' AND (worker IS NULL OR worker = :worker)"""
)
# Once: a job that ended stays as it is, and one that was asked already is asked no more.
_ASK_TO_STOP = text(
    """UPDATE job SET status = CASE status WHEN 'SUBMITTED' THEN 'STOPPED' ELSE 'STOP_REQUESTED' END,
        ended = CASE status WHEN 'SUBMITTED' THEN now() END
    WHERE job_id = :job AND datastore_id = :datastore AND kind = :kind AND status IN ('SUBMITTED', 'IN_PROGRESS')
    RETURNING status"""
)
_STATUS = text("SELECT status FROM job WHERE job_id = :job AND datastore_id = :datastore AND kind = :kind")
_STOPPING = text(
    "SELECT 1 FROM job WHERE job_id = :job AND status = 'STOP_REQUESTED' AND (worker IS NULL OR worker = :worker)"
)
_INPUTS = text(
    """SELECT number, url, size, fingerprint, position, read_count, finished FROM job_file
    WHERE job_id = :job AND role = 'input' ORDER BY number"""
)
_ADD_INPUTS = text(
    """INSERT INTO job_file (job_id, number, role, url, size, fingerprint)
    SELECT :job, x.n, 'input', x.u, x.s, x.f FROM unnest(CAST(:numbers AS int[]), CAST(:urls AS text[]),
        CAST(:sizes AS bigint[]), CAST(:fingerprints AS text[])) AS x(n, u, s, f)"""
)


class Job(Struct, frozen=True):
    """A job that this worker holds."""

    id: str
    kind: str
    status: str
    request: dict[str, Any]
    datastore: str
    snapshot: str | None
    transaction_time: datetime | None


class Input(Struct, frozen=True):
    file: FileState
    finished: bool


async def claim(database: Database, worker: str, seconds: float) -> Job | None:
    """The oldest open job that nobody holds."""

    async def work(connection: AsyncConnection) -> Job | None:
        found = (await connection.execute(_CLAIM, {"worker": worker, "seconds": seconds})).first()
        return Job(*found) if found else None

    return await database.write(work)


async def end(database: Database, job: str, lease: Lease, status: str, message: str | None = None) -> None:
    """Raises Lost when it is not ours to end."""

    async def work(connection: AsyncConnection) -> None:
        await lease.fence(connection)
        await connection.execute(_END, {"job": job, "status": status, "message": message})

    await database.write(work)


async def is_stopping(database: Database, job: str, worker: str) -> bool:
    """Whether a stop was asked for and is ours to carry out."""

    async def look(connection: AsyncConnection) -> bool:
        return (await connection.execute(_STOPPING, {"job": job, "worker": worker})).first() is not None

    return await database.read(look)


async def stop(database: Database, job: str, worker: str) -> None:
    """Nothing happens unless a stop was asked for."""
    await database.write(lambda connection: connection.execute(_STOP, {"job": job, "worker": worker}))


async def ask_to_stop(connection: AsyncConnection, datastore: int, kind: str, job: str) -> tuple[str, bool]:
    """(status afterwards, "" for no such job; whether this request changed it). Its worker stops at its next write."""
    values = {"job": job, "datastore": datastore, "kind": kind}
    changed = (await connection.execute(_ASK_TO_STOP, values)).scalar()
    if changed is not None:
        return changed, True
    return (await connection.execute(_STATUS, values)).scalar() or "", False


async def inputs(database: Database, job: str) -> list[Input]:
    async def look(connection: AsyncConnection) -> list[Input]:
        rows = await connection.execute(_INPUTS, {"job": job})
        return [Input(FileState(*row[:6]), row[6]) for row in rows]

    return await database.read(look)


async def add_inputs(database: Database, job: str, lease: Lease, sources: list[Source]) -> None:
    """Once: what a job reads is settled when it begins."""

    async def work(connection: AsyncConnection) -> None:
        await lease.fence(connection)
        values = {
            "job": job,
            "numbers": list(range(1, len(sources) + 1)),
            "urls": [source.url for source in sources],
            "sizes": [source.size for source in sources],
            "fingerprints": [source.fingerprint for source in sources],
        }
        await connection.execute(_ADD_INPUTS, values)

    await database.write(work)
