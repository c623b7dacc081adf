"""The loop that finds work in the database, takes it under a lease and goes on where a dead worker stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Coroutine
from typing import Any, Protocol

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.database import Database
from wardmesh_fhir_store.datastores import Datastores
from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.jobs.importing import Ending
from wardmesh_fhir_store.jobs.leases import Lease, Lost
from wardmesh_fhir_store.jobs.lifecycle import Lifecycle, Stage
from wardmesh_fhir_store.jobs.places import BadPlace
from wardmesh_fhir_store.jobs.rows import Job, claim, end, is_stopping, stop
from wardmesh_fhir_store.store import Store

_LOG = logging.getLogger("wardmesh.fhir-store")
_CLAIM_DATASTORE = text(
    """UPDATE datastore SET worker = :worker, lease_until = now() + make_interval(secs => :seconds)
    WHERE datastore_id = (SELECT datastore_id FROM datastore
        WHERE status IN ('CREATING', 'DELETING')
        AND (lease_until IS NULL OR lease_until < now()) ORDER BY lease_until NULLS FIRST LIMIT 1
        FOR UPDATE SKIP LOCKED)
    RETURNING datastore_id, public_id, status, settings"""
)


class Runs(Protocol):
    """Carries out jobs of one kind."""

    async def run(self, job: Job, store: Store, lease: Lease) -> Ending:
        """Goes on where the job stopped. Raises BadPlace, Lost, Fault."""
        ...

    async def abandon(self, job: Job) -> None:
        """Before a job is stopped for good: removes what nobody could reach afterwards. Raises BadPlace, Fault."""
        ...


class Worker:
    """One job at a time; `wake` spares the wait for the next look."""

    def __init__(
        self,
        database: Database,
        datastores: Datastores,
        lifecycle: Lifecycle,
        kinds: dict[str, Runs],
        lease_seconds: float,
        poll_seconds: float,
    ) -> None:
        self._database = database
        self._datastores = datastores
        self._lifecycle = lifecycle
        self._kinds = kinds
        self._seconds = lease_seconds
        self._poll = poll_seconds
        self._name = uuid.uuid4().hex
        self._awake = asyncio.Event()

    def wake(self) -> None:
        self._awake.set()

    async def run(self) -> None:
        """Until cancelled; what it holds then is free for others at once."""
        while True:
            self._awake.clear()
            if not await self._step():
                # Not `wait_for`: until Python 3.12 that forgets a cancellation which comes with the call to wake up.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll):
                        await self._awake.wait()

    async def _step(self) -> bool:
        """Whether there was anything to do."""
        try:
            return await self._datastore() or await self._job()
        except Fault as fault:  # the database is away: look again later
            _LOG.warning("jobs wait: %s", fault)
        except Exception:  # noqa: BLE001 - the edge: the next worker tries again when the lease is over
            _LOG.exception("work on a job failed unexpectedly")
        return False

    async def _datastore(self) -> bool:
        async def claim(connection: AsyncConnection) -> Stage | None:
            values = {"worker": self._name, "seconds": self._seconds}
            found = (await connection.execute(_CLAIM_DATASTORE, values)).first()
            return Stage(*found) if found else None

        stage = await self._database.write(claim)
        if stage is None:
            return False
        lease = Lease(self._database, "datastore", stage.key, self._name, self._seconds)
        await self._hold(lease, self._lifecycle.advance(stage, lease))
        return True

    async def _job(self) -> bool:
        job = await claim(self._database, self._name, self._seconds)
        if job is None:
            return False
        lease = Lease(self._database, "job", job.id, self._name, self._seconds)
        if job.status != "STOP_REQUESTED":
            await self._hold(lease, self._carry_out(job, lease))
        if await is_stopping(self._database, job.id, self._name):
            with contextlib.suppress(BadPlace):  # a place that takes no file may not give one up either
                await self._kinds[job.kind].abandon(job)
            await stop(self._database, job.id, self._name)
        return True

    async def _carry_out(self, job: Job, lease: Lease) -> None:
        """A fault of what was asked for ends the job; one of the database leaves it for later."""
        try:
            store = await self._datastores.active(job.datastore)
            ending = await self._kinds[job.kind].run(job, store, lease)
        except BadPlace as bad:
            ending = Ending("FAILED", str(bad))
        except Fault as fault:
            if fault.status >= 500:
                raise
            ending = Ending("FAILED", str(fault))
        except (Lost, asyncio.CancelledError):
            raise
        except Exception:  # noqa: BLE001 - the edge: the job says that it failed, the log says why
            _LOG.exception("a job failed unexpectedly")
            ending = Ending("FAILED", "The store failed; the error is logged.")
        await end(self._database, job.id, lease, ending.status, ending.message)

    async def _hold(self, lease: Lease, work: Coroutine[Any, Any, None]) -> None:
        try:
            await lease.hold(work)
        except Lost:
            _LOG.info("a job went to another worker or was stopped")
        except (asyncio.CancelledError, Fault):
            with contextlib.suppress(Fault):
                await lease.release()
            raise
