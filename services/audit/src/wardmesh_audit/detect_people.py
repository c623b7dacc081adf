"""The directory of people that rules compare with: read from feed files, kept as keyed hashes only."""

from __future__ import annotations

import csv
import hashlib
import hmac
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from wardmesh_audit.detect_schedule import BadSchedule, Schedule, parse_schedule
from wardmesh_audit.subject_keys import handle_of

COMPARED: Final = ("family", "surname", "address", "employer")
_LISTS: Final = ("patients", "lists")


class BadDirectory(Exception):
    """A feed file is not valid; names the file and the line, never what it holds."""


class Entry(Struct, kw_only=True, forbid_unknown_fields=True):
    """One person as a feed states it: an actor, a patient (`<platform>/Patient/<id>`), or both."""

    actor: str = ""
    patients: tuple[str, ...] = ()
    tenant: str = "default"
    family: str = ""
    surname: str = ""
    address: str = ""
    employer: str = ""
    status: str = "active"
    status_since: datetime | None = None
    last_active: datetime | None = None
    schedule: str = ""
    zone: str = "UTC"
    lists: tuple[str, ...] = ()


class Card(Struct, frozen=True, kw_only=True):
    """What is kept of a person. `marks` are keyed hashes: equal when the values were."""

    marks: dict[str, bytes]
    status: str
    status_since: datetime | None
    last_active: datetime | None
    schedule: Schedule | None
    lists: frozenset[str]


class People:
    """Finds cards by actor and by the handle under which the key database knows a patient."""

    def __init__(self, key: bytes, handle_key: bytes, entries: Iterable[Entry] = ()) -> None:
        self._key = key
        self._handle_key = handle_key
        self._actors: dict[bytes, Card] = {}
        self._patients: dict[bytes, Card] = {}
        for entry in entries:
            self._add(entry)

    def __len__(self) -> int:
        return len(self._actors) + len(self._patients)

    @property
    def knows_patients(self) -> bool:
        return bool(self._patients)

    def actor(self, tenant: str, actor: str) -> Card | None:
        return self._actors.get(self._mark("actor", tenant, actor)) if self._actors else None

    def patient(self, handle: bytes | None) -> Card | None:
        return self._patients.get(handle) if handle else None

    def _add(self, entry: Entry) -> None:
        card = Card(
            marks=self._marks(entry),
            status=entry.status,
            status_since=_utc(entry.status_since),
            last_active=_utc(entry.last_active),
            schedule=parse_schedule(entry.schedule, entry.zone) if entry.schedule else None,
            lists=frozenset(entry.lists),
        )
        if entry.actor:
            self._actors[self._mark("actor", entry.tenant, entry.actor)] = card
        for reference in entry.patients:
            self._patients[handle_of(self._handle_key, entry.tenant, reference)] = card

    def _marks(self, entry: Entry) -> dict[str, bytes]:
        found = {name: self._mark(name, entry.tenant, _plain(getattr(entry, name))) for name in COMPARED}
        found = {name: mark for name, mark in found.items() if getattr(entry, name).strip()}
        found["person"] = self._mark("person", entry.tenant, entry.actor or entry.patients[0])
        return found

    def _mark(self, name: str, tenant: str, value: str) -> bytes:
        return hmac.digest(self._key, f"{name}\x1f{tenant}\x1f{value}".encode(), hashlib.sha256)[:16]


def read_entries(folder: Path) -> list[Entry]:
    """All `*.json` (a list of persons) and `*.csv` files of a directory. Raises BadDirectory."""
    if not folder.is_dir():
        raise BadDirectory("the directory of feed files does not exist")
    entries: list[Entry] = []
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".csv"):
            entries += _entries(path)
    return entries


def _entries(path: Path) -> list[Entry]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows: Any = list(csv.DictReader(file)) if path.suffix == ".csv" else msgspec.json.decode(file.read())
    except (OSError, ValueError, csv.Error, msgspec.MsgspecError):
        raise BadDirectory(f"{path.name}: the file cannot be read") from None
    if not isinstance(rows, list):
        raise BadDirectory(f"{path.name}: a list of persons is expected")
    return [_entry(path.name, number, row) for number, row in enumerate(rows, 1)]  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]


def _entry(file: str, number: int, row: Any) -> Entry:
    if file.endswith(".csv"):
        row = {k: _parts(v) if k in _LISTS else v for k, v in row.items() if v}
    try:
        entry = msgspec.convert(row, Entry, strict=False)
        if entry.schedule:
            parse_schedule(entry.schedule, entry.zone)
    except (msgspec.ValidationError, BadSchedule, TypeError):  # its text may quote what the file holds
        raise BadDirectory(f"{file}: person {number} is not valid") from None
    if not entry.actor and not entry.patients:
        raise BadDirectory(f"{file}: person {number} has neither an actor nor a patient")
    return entry


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


def _plain(text: str) -> str:
    """Case, accents and spacing make no other person."""
    folded = unicodedata.normalize("NFKD", text).casefold()
    return " ".join("".join(c for c in folded if not unicodedata.combining(c)).split())


def _utc(value: datetime | None) -> datetime | None:
    return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value
