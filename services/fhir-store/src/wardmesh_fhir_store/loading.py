"""`wardmesh-fhir-store load PATH...`: NDJSON and Bundles from the command line, with a bar, exactly once."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store import tables
from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.jobs.leases import Lost
from wardmesh_fhir_store.jobs.loads import Busy, Content, Loaded, load_content
from wardmesh_fhir_store.jobs.places import SUFFIXES
from wardmesh_fhir_store.loading_bar import Bar
from wardmesh_fhir_store.opening import Unusable, registry
from wardmesh_fhir_store.settings import StoreSettings
from wardmesh_fhir_store.store import Store

_LOG = logging.getLogger("wardmesh.fhir-store")
LARGEST_FILE = 512 * 1024 * 1024  # of a Bundle or of one line: whoever runs the command is trusted further
MANY = 1_000  # from here on the planner needs new statistics
# Bundles of patients refer to what these hold.
_FIRST = ("hospitalInformation", "practitionerInformation")


async def refresh_statistics(store: Store) -> None:
    """After a bulk load the planner would guess until autovacuum comes by."""

    async def analyze(connection: AsyncConnection) -> None:
        for table in (tables.current, tables.version, *tables.INDEX_TABLES.values()):
            await connection.execute(text(f"ANALYZE {table.name}"))

    await store.database.read(analyze)


def found_below(paths: Sequence[Path]) -> Iterator[Path]:
    """Files as given, and the NDJSON and JSON files of folders."""
    for path in paths:
        if path.is_dir():
            inside = [one for one in path.rglob("*") if one.suffix in SUFFIXES and one.is_file()]
            yield from sorted(inside, key=lambda one: (not one.name.startswith(_FIRST), str(one)))
        else:
            yield path


class Loader:
    """Counts over all files of one command."""

    def __init__(self, store: Store, lease_seconds: float, bar: Bar) -> None:
        self._store = store
        self._lease_seconds = lease_seconds
        self._bar = bar
        self.resources = 0
        self.refused = 0

    async def load(self, path: Path) -> None:
        """Goes on after a file that is refused, and says so."""
        try:
            loaded = await self._load(path)
        except OSError as error:
            self._refuse(f"cannot be read: {error.strerror}")
        except (Busy, Lost):
            self._refuse("is being loaded by another process")
        except Fault as fault:
            where = next((e for issue in fault.issues for e in issue.expression or ()), "")
            self._refuse(f"was refused: {fault} {where}")
        else:
            self.resources += loaded.done
            self.refused += loaded.failed > 0
            note = "loaded before" if loaded.again else f"{loaded.done} resources"
            self._bar.done(note + (f", {loaded.failed} lines refused" if loaded.failed else ""))

    def _refuse(self, why: str) -> None:
        self.refused += 1
        self._bar.failed(why)

    async def _load(self, path: Path) -> Loaded:
        size, token = await asyncio.to_thread(_measure, path)

        async def opened(position: int) -> BinaryIO:
            reader = path.open("rb")
            reader.seek(position)
            return reader

        self._bar.begin(size)
        content = Content(token, path.name, size, opened)
        return await load_content(self._store, content, LARGEST_FILE, self._lease_seconds, self._bar.advance)


async def load_files(settings: StoreSettings, paths: Sequence[Path], datastore: str) -> int:
    """0 when every file is in the store."""
    files = list(found_below(paths))
    if not files:
        _LOG.error("there is no .ndjson or .json file to load")
        return 1
    try:
        async with registry(settings) as datastores:
            own = settings.base if datastore == datastores.addresses.default else ""
            store = await datastores.active(datastore, own)
            gc.freeze()  # definitions and code stay: the collector need not look at them again and again
            loader = Loader(store, settings.job_lease_seconds, Bar(len(files)))
            for path in files:
                await loader.load(path)
            if loader.resources >= MANY:
                await refresh_statistics(store)
    except Unusable as error:
        _LOG.error("%s", error)
        return 1
    except Fault as fault:
        _LOG.error("nothing was loaded: %s", fault)
        return 1
    return 1 if loader.refused else 0


def _measure(path: Path) -> tuple[int, str]:
    with path.open("rb") as reader:
        return path.stat().st_size, hashlib.file_digest(reader, "sha256").hexdigest()
