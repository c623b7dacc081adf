"""Puts together what jobs and the control plane need: places, workers and the face that starts them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from wardmesh_common.ending import ended
from wardmesh_common.settings import BadSettings
from wardmesh_fhir_store.control.datastores import DatastoreControl
from wardmesh_fhir_store.control.jobs import JobControl
from wardmesh_fhir_store.control.pages import PageTokens
from wardmesh_fhir_store.control.wire import Control
from wardmesh_fhir_store.datastores import Datastores
from wardmesh_fhir_store.jobs.bulk import BulkPlace
from wardmesh_fhir_store.jobs.exporting import Exporting
from wardmesh_fhir_store.jobs.importing import Importing
from wardmesh_fhir_store.jobs.lifecycle import Lifecycle
from wardmesh_fhir_store.jobs.objects import Objects
from wardmesh_fhir_store.jobs.places import BadPlace, Files, Folder, Places, Storage
from wardmesh_fhir_store.jobs.worker import Runs, Worker
from wardmesh_fhir_store.settings import StoreSettings
from wardmesh_fhir_store.wire import Handler


def places_of(settings: StoreSettings) -> Places:
    """Only what was configured can be read or written. Raises BadSettings."""
    storages: dict[str, Storage] = {}
    if settings.file_roots:
        storages["file"] = Files([Path(root) for root in settings.file_roots])
    if settings.s3_folder:
        storages["s3"] = Folder(Path(settings.s3_folder))
    elif settings.s3_endpoint:
        storages["s3"] = Objects(settings.s3_endpoint, settings.s3_region)
    places = Places(storages)
    if settings.bulk_url:
        try:
            places.check(settings.bulk_url)
        except BadPlace:
            raise BadSettings("WARDMESH_BULK_URL is not a URL that jobs may use") from None
    return places


class Jobs:
    """`key` seals page tokens: the default datastore's, so that every replica opens them."""

    def __init__(self, settings: StoreSettings, datastores: Datastores, key: bytes) -> None:
        self._datastores = datastores
        self._tokens = PageTokens(key)
        self._places = places_of(settings)
        self.bulk = BulkPlace(self._places, settings.bulk_url, self.wake) if settings.bulk_url else None
        self._workers = [self._worker(settings) for _ in range(settings.job_workers)]

    def _worker(self, settings: StoreSettings) -> Worker:
        database, places = self._datastores.database, self._places
        kinds: dict[str, Runs] = {
            "import": Importing(database, places, settings.max_body_bytes),
            "export": Exporting(database, places, settings.job_file_resources),
        }
        lifecycle = Lifecycle(database, self._datastores)
        seconds, poll = settings.job_lease_seconds, settings.job_poll_seconds
        return Worker(database, self._datastores, lifecycle, kinds, seconds, poll)

    def wake(self) -> None:
        for worker in self._workers:
            worker.wake()

    def control(self, elsewhere: Handler) -> Control:
        """The control plane in front of everything else."""
        of = self._datastores
        registry = DatastoreControl(of.database, of.addresses, self._tokens, self.wake, of.forget)
        jobs = JobControl(of.database, registry, of, self._tokens, self._places, self.wake)
        return Control(registry, jobs, elsewhere)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Workers beside the requests; what they hold at the end is free for others at once."""
        tasks = [asyncio.create_task(worker.run()) for worker in self._workers]
        try:
            yield
        finally:
            await ended(*tasks)
