"""Leases: one worker at a time holds a row, and whoever lost it can write nothing more for it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store.database import Database
from wardmesh_fhir_store.faults import Fault

_BEATS = 3  # in the time of one lease


class Lost(Exception):
    """Another worker holds the row, or it was stopped: what was being done is not written."""


def _extend(table: str, key: str, states: str) -> TextClause:
    return text(
        f"""UPDATE {table} SET lease_until = now() + make_interval(secs => :seconds)
        WHERE {key} = :id AND worker = :worker AND status IN ({states}) RETURNING 1"""  # noqa: S608 - our own names
    )


_EXTEND = {
    "job": _extend("job", "job_id", "'IN_PROGRESS'"),
    "datastore": _extend("datastore", "datastore_id", "'CREATING', 'DELETING'"),
}
_RELEASE = {
    "job": text("UPDATE job SET lease_until = now(), worker = NULL WHERE job_id = :id AND worker = :worker"),
    "datastore": text(
        "UPDATE datastore SET lease_until = now(), worker = NULL WHERE datastore_id = :id AND worker = :worker"
    ),
}


class Lease:
    """What one worker holds of one table."""

    def __init__(self, database: Database, table: str, row: str | int, worker: str, seconds: float) -> None:
        self._database = database
        self._table = table
        self._own = {"id": row, "worker": worker}
        self.seconds = seconds

    async def fence(self, connection: AsyncConnection) -> None:
        """Inside the transaction that writes: raises Lost and so undoes it."""
        values = {**self._own, "seconds": self.seconds}
        if (await connection.execute(_EXTEND[self._table], values)).first() is None:
            raise Lost

    async def release(self) -> None:
        """Another worker may go on at once."""
        await self._database.write(lambda connection: connection.execute(_RELEASE[self._table], self._own))

    async def hold(self, work: Coroutine[Any, Any, None]) -> None:
        """Does the work and extends the lease meanwhile. Raises Lost and what the work raises."""
        task = asyncio.create_task(work)
        try:
            while not task.done():
                done, _ = await asyncio.wait({task}, timeout=self.seconds / _BEATS)
                if not done:
                    await self._beat()
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _beat(self) -> None:
        try:
            await self._database.write(self.fence)
        except Fault:  # the database is away for the moment: the work itself will meet that too
            return
