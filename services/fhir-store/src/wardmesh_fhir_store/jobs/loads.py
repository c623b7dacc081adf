"""Files loaded by a command: one job per content and datastore, so that nothing is loaded twice and a kill resumes."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.jobs.ingest import FileState, Ingest, Opened, Told, silent, take_in
from wardmesh_fhir_store.jobs.leases import Lease
from wardmesh_fhir_store.jobs.rows import end
from wardmesh_fhir_store.store import Store

_BEGIN = text(
    """INSERT INTO job (job_id, datastore_id, kind, status, client_token, request, request_hash)
    VALUES (:job, :datastore, 'load', 'SUBMITTED', :token, '{}', '') ON CONFLICT DO NOTHING"""
)
# A load that ended is not repeated; one that failed as a whole is, and so is one whose process is gone.
_TAKE = text(
    """UPDATE job SET status = 'IN_PROGRESS', worker = :worker, started = coalesce(started, now()), ended = NULL,
        message = NULL, lease_until = now() + make_interval(secs => :seconds)
    WHERE datastore_id = :datastore AND kind = 'load' AND client_token = :token AND (status IN ('SUBMITTED', 'FAILED')
        OR (status = 'IN_PROGRESS' AND (lease_until IS NULL OR lease_until < now())))
    RETURNING job_id"""
)
_STATE = text("""SELECT status FROM job WHERE datastore_id = :datastore AND kind = 'load' AND client_token = :token""")
_FILE = text(
    """INSERT INTO job_file (job_id, number, role, url, size) VALUES (:job, 1, 'input', :name, :size)
    ON CONFLICT (job_id, number) DO UPDATE SET size = EXCLUDED.size RETURNING position, read_count"""
)
_DONE = text(
    """SELECT f.done_count, f.failed_count FROM job j JOIN job_file f USING (job_id)
    WHERE j.datastore_id = :datastore AND j.kind = 'load' AND j.client_token = :token"""
)
_REFUSED = text(
    """SELECT e.line, e.outcome FROM job j JOIN job_error e USING (job_id)
    WHERE j.datastore_id = :datastore AND j.kind = 'load' AND j.client_token = :token AND e.line > :after
    ORDER BY e.line LIMIT :most"""
)
_PAGE = 1_000


class Busy(Exception):
    """Another process is loading the same content."""


class Loaded(Struct, frozen=True):
    """What the file brought in all its runs; `again` when nothing was left to do."""

    done: int = 0
    failed: int = 0
    again: bool = False


class Content(Struct, frozen=True):
    """`token` stands for the bytes, whatever the file is called."""

    token: str
    name: str
    size: int
    opened: Opened


async def load_content(
    store: Store, content: Content, longest: int, lease_seconds: float, told: Told = silent
) -> Loaded:
    """Exactly once per datastore. Raises Busy, Lost and, when a Bundle is refused, Fault."""
    taken = await _take(store, content, lease_seconds)
    if taken is not None:
        job, lease, file = taken
        async with _released(lease):
            await lease.hold(_carry_out(store, job, lease, file, content, longest, told))

    async def look(connection: AsyncConnection) -> Loaded:
        row = (await connection.execute(_DONE, {"datastore": store.datastore, "token": content.token})).one()
        return Loaded(row[0], row[1], again=taken is None)

    return await store.database.read(look)


async def refused_lines(store: Store, token: str) -> AsyncGenerator[tuple[int, bytes]]:
    """(line, OperationOutcome) of all runs that this content had, a page at a time."""
    after = 0
    own = {"datastore": store.datastore, "token": token, "most": _PAGE}
    while True:
        values = own | {"after": after}

        async def look(connection: AsyncConnection, values: dict[str, Any] = values) -> list[tuple[int, bytes]]:
            return [(line, bytes(outcome)) for line, outcome in await connection.execute(_REFUSED, values)]

        found = await store.database.read(look)
        for line, outcome in found:
            yield line, outcome
        if len(found) < _PAGE:
            return
        after = found[-1][0]


async def _carry_out(
    store: Store, job: str, lease: Lease, file: FileState, content: Content, longest: int, told: Told
) -> None:
    ingest = Ingest(store, job, lease, longest, told)
    try:
        await take_in(ingest, file, content.opened, longest)
    except Fault as fault:
        if fault.status < 500:
            await end(store.database, job, lease, "FAILED", str(fault))
        raise
    await end(store.database, job, lease, "COMPLETED")


@asynccontextmanager
async def _released(lease: Lease) -> AsyncGenerator[None]:
    """A command that is interrupted can be repeated at once."""
    try:
        yield
    except BaseException:
        await lease.release()
        raise


async def _take(store: Store, content: Content, seconds: float) -> tuple[str, Lease, FileState] | None:
    worker = secrets.token_hex(16)
    own = {"datastore": store.datastore, "token": content.token}

    async def work(connection: AsyncConnection) -> tuple[str, FileState] | None:
        await connection.execute(_BEGIN, own | {"job": secrets.token_hex(16)})
        job = (await connection.execute(_TAKE, own | {"worker": worker, "seconds": seconds})).scalar()
        if job is None:
            if (await connection.execute(_STATE, own)).scalar_one() == "IN_PROGRESS":
                raise Busy
            return None
        named = {"job": job, "name": content.name, "size": content.size}
        position, line = (await connection.execute(_FILE, named)).one()
        return job, FileState(1, content.name, content.size, "", position, line)

    found = await store.database.write(work)
    if found is None:
        return None
    return found[0], Lease(store.database, "job", found[0], worker, seconds), found[1]
