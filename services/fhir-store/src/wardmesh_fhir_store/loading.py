"""`wardmesh-fhir-store load PATH...`: NDJSON and Bundles from the command line, with a bar, exactly once."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store import tables
from wardmesh_fhir_store.faults import Fault
from wardmesh_fhir_store.jobs.leases import Lost
from wardmesh_fhir_store.jobs.loads import Busy, Content, Loaded, load_content, refused_lines
from wardmesh_fhir_store.jobs.places import SUFFIXES
from wardmesh_fhir_store.jobs.portions import refusal
from wardmesh_fhir_store.loading_bar import Bar
from wardmesh_fhir_store.loading_refusals import Refusals
from wardmesh_fhir_store.opening import Unusable, registry
from wardmesh_fhir_store.settings import StoreSettings
from wardmesh_fhir_store.store import Store

LARGEST_FILE = 512 * 1024 * 1024  # of a Bundle or of one line: whoever runs the command is trusted further
EXIT_COMMAND = 2
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

    def __init__(self, store: Store, lease_seconds: float, bar: Bar, refusals: Refusals) -> None:
        self._store = store
        self._lease_seconds = lease_seconds
        self._bar = bar
        self._refusals = refusals
        self.resources = 0
        self.refused = 0

    async def load(self, path: Path) -> None:
        """Goes on after a file that is refused, and says so."""
        self._bar.begin()
        try:
            token, loaded = await self._load(path)
        except OSError:
            self._refuse(path, Fault(400, "exception", "The file cannot be read."))
        except (Busy, Lost):
            self._refuse(path, Fault(409, "lock-error", "The file is being loaded by another process."))
        except Fault as fault:
            self._refuse(path, fault)
        else:
            self.resources += 0 if loaded.again else loaded.done
            self.refused += loaded.failed > 0
            note = "loaded before" if loaded.again else f"{loaded.done} resources"
            self._bar.done(note + (f", {_lines(loaded.failed)} refused" if loaded.failed else ""))
            if loaded.failed:
                async for line, outcome in refused_lines(self._store, token):
                    self._refusals.add(path, line, outcome)

    def _refuse(self, path: Path, fault: Fault) -> None:
        self.refused += 1
        self._bar.failed("was refused as a whole")
        self._refusals.add(path, 1, refusal(path.name, 1, fault).outcome)

    async def _load(self, path: Path) -> tuple[str, Loaded]:
        size, token = await asyncio.to_thread(_measure, path)

        async def opened(position: int) -> BinaryIO:
            reader = path.open("rb")
            reader.seek(position)
            return reader

        self._bar.measured(size)
        content = Content(token, path.name, size, opened)
        return token, await load_content(self._store, content, LARGEST_FILE, self._lease_seconds, self._bar.advance)


async def load_files(settings: StoreSettings, paths: Sequence[Path], datastore: str, errors: Path | None = None) -> int:
    """0 when everything is in the store, 1 when something was refused, 2 when the command names what cannot be."""
    try:
        files = _checked(paths, errors)
        with _opened(errors) as written:
            return await _load_all(settings, files, datastore, written)
    except _BadCommand as error:
        return _fail(str(error), EXIT_COMMAND)
    except Unusable as error:
        return _fail(str(error), 1)
    except Fault as fault:
        return _fail(f"nothing was loaded: {fault}", 1)


async def _load_all(settings: StoreSettings, files: Sequence[Path], datastore: str, written: BinaryIO | None) -> int:
    if not files:
        return _fail("there is no .ndjson or .json file to load", 1)
    bar = Bar(len(files))
    async with registry(settings) as datastores:
        own = settings.base if datastore == datastores.addresses.default else ""
        store = await datastores.active(datastore, own)
        gc.freeze()  # definitions and code stay: the collector need not look at them again and again
        refusals = Refusals(bar.say, written)
        loader = Loader(store, settings.job_lease_seconds, bar, refusals)
        for path in files:
            await loader.load(path)
        refusals.end()
        if loader.resources >= MANY:
            await refresh_statistics(store)
    return 1 if loader.refused else 0


class _BadCommand(Exception):
    """The command cannot be carried out as it was given; nothing was loaded."""


def _checked(paths: Sequence[Path], errors: Path | None) -> list[Path]:
    """Before anything is loaded or written."""
    for path in paths:
        if not path.exists():
            raise _BadCommand(f"{path}: there is no such file or folder")
    files = list(found_below(paths))
    if errors is not None and _is_input(errors, paths):
        raise _BadCommand(f"{errors}: the refusals would be loaded the next time; name a file outside what is loaded")
    return files


def _opened(errors: Path | None) -> AbstractContextManager[BinaryIO | None]:
    try:
        return nullcontext() if errors is None else errors.open("wb")
    except OSError as error:
        raise _BadCommand(f"{errors}: {error.strerror}") from None


def _is_input(errors: Path, paths: Sequence[Path]) -> bool:
    there = errors.resolve()
    return any(
        there == path.resolve() or (path.is_dir() and there.suffix in SUFFIXES and there.is_relative_to(path.resolve()))
        for path in paths
    )


def _fail(why: str, code: int) -> int:
    sys.stderr.write(f"wardmesh-fhir-store: {why}\n")
    return code


def _lines(count: int) -> str:
    return "1 line" if count == 1 else f"{count} lines"


def _measure(path: Path) -> tuple[int, str]:
    with path.open("rb") as reader:
        return path.stat().st_size, hashlib.file_digest(reader, "sha256").hexdigest()
