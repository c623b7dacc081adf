"""The feed files of people: read at start and again whenever they have changed; what is not valid changes nothing."""

from __future__ import annotations

import hashlib
import hmac
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct

from wardmesh_audit.detect_people import BadDirectory, People, feed_files, read_entries
from wardmesh_audit.resting import RestingFiles


class Reading(Struct, frozen=True):
    """What one reading gave. `digest` is keyed: it tells two feeds apart and nothing about either."""

    people: People
    digest: str
    facts: dict[str, Any]


class Directory:
    """One folder of feed files, or none. Files that are being written are left alone until they rest."""

    def __init__(self, folder: Path | None, key: bytes, handle_key: bytes) -> None:
        self._folder = folder
        self._key = key
        self._handle_key = handle_key
        self._files = RestingFiles(self._listed, partial(BadDirectory, "the directory of feed files cannot be read"))
        self.reading = Reading(People(key, handle_key), "", {})

    @property
    def watched(self) -> bool:
        return self._folder is not None

    def load(self) -> None:
        """Takes over what is there now. Raises BadDirectory."""
        if self._folder is not None:
            marks = self._files.marks()
            self.reading = self._read(self._folder)
            self._files.take(marks)

    def look(self) -> None:
        """Takes other files over once they rest. Raises BadDirectory, once."""
        if self._files.changed() and self._folder is not None:
            self.reading = self._read(self._folder)

    def _listed(self) -> list[Path]:
        return feed_files(self._folder) if self._folder is not None else []

    def _read(self, folder: Path) -> Reading:
        entries = read_entries(folder)
        found = hmac.new(self._key, digestmod=hashlib.sha256)
        for path in feed_files(folder):
            found.update(f"{path.name}\x1f".encode() + hashlib.sha256(path.read_bytes()).digest())
        people = People(self._key, self._handle_key, entries)
        facts = {
            "digest": found.hexdigest()[:16],
            "files": len(feed_files(folder)),
            "entries": len(entries),
            "actors": people.actors,
            "patients": people.patients,
            "listed": sum(bool(entry.lists) for entry in entries),
            "inactive": sum(entry.status != "active" for entry in entries),
        }
        return Reading(people, found.hexdigest(), facts)
