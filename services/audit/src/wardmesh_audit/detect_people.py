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
_LISTS: Final = ("patients", "lists", "care_team")


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
    care_team: tuple[str, ...] | None = None  # actors who treat this patient; None: the feed does not tell


class Card(Struct, frozen=True, kw_only=True):
    """What is kept of a person. `marks` are keyed hashes: equal when the values were."""

    marks: dict[str, bytes]
    status: str
    status_since: datetime | None
    last_active: datetime | None
    schedule: Schedule | None
    lists: frozenset[str]
    team: frozenset[bytes] | None

    def with_more(self, more: Card) -> Card:
        """One person out of several files, such as staff, lists and care teams: what a later one says goes first."""
        teams = [team for team in (self.team, more.team) if team is not None]
        return Card(
            marks={**self.marks, **more.marks},
            status=self.status if more.status == "active" else more.status,
            status_since=more.status_since or self.status_since,
            last_active=more.last_active or self.last_active,
            schedule=more.schedule or self.schedule,
            lists=self.lists | more.lists,
            team=frozenset[bytes]().union(*teams) if teams else None,
        )


class People:
    """Finds cards by actor and by the handle under which the key database knows a patient."""

    def __init__(self, key: bytes, handle_key: bytes, entries: Iterable[Entry] = ()) -> None:
        self._key = key
        self._handle_key = handle_key
        self._actors: dict[bytes, Card] = {}
        self._patients: dict[bytes, Card] = {}
        for entry in entries:
            self._add(entry)

    @property
    def actors(self) -> int:
        return len(self._actors)

    @property
    def patients(self) -> int:
        return len(self._patients)

    def actor(self, tenant: str, actor: str) -> Card | None:
        return self._actors.get(self._mark("actor", tenant, actor)) if self._actors else None

    def patient(self, handle: bytes | None) -> Card | None:
        return self._patients.get(handle) if handle else None

    def relationship(self, tenant: str, actor: str, patient: Card | None) -> str:
        """As the feed tells it; "" when it does not tell who treats this patient."""
        if patient is None or patient.team is None:
            return ""
        return "care-team" if self._mark("actor", tenant, actor) in patient.team else "none"

    def _add(self, entry: Entry) -> None:
        card = Card(
            marks=self._marks(entry),
            status=entry.status,
            status_since=_utc(entry.status_since),
            last_active=_utc(entry.last_active),
            schedule=parse_schedule(entry.schedule, entry.zone) if entry.schedule else None,
            lists=frozenset(entry.lists),
            team=None
            if entry.care_team is None
            else frozenset(self._mark("actor", entry.tenant, actor) for actor in entry.care_team),
        )
        if entry.actor:
            _put(self._actors, self._mark("actor", entry.tenant, entry.actor), card)
        for reference in entry.patients:
            _put(self._patients, handle_of(self._handle_key, entry.tenant, reference), card)

    def _marks(self, entry: Entry) -> dict[str, bytes]:
        found = {name: self._mark(name, entry.tenant, _plain(getattr(entry, name))) for name in COMPARED}
        found = {name: mark for name, mark in found.items() if getattr(entry, name).strip()}
        if entry.actor and entry.patients:  # somebody who works here and is a patient here
            found["person"] = self._mark("person", entry.tenant, entry.actor)
        return found

    def _mark(self, name: str, tenant: str, value: str) -> bytes:
        return hmac.digest(self._key, f"{name}\x1f{tenant}\x1f{value}".encode(), hashlib.sha256)[:16]


def _put(cards: dict[bytes, Card], name: bytes, card: Card) -> None:
    known = cards.get(name)
    cards[name] = card if known is None else known.with_more(card)


def feed_files(folder: Path) -> list[Path]:
    """All `*.json` (a list of persons) and `*.csv` files of a directory. Raises BadDirectory."""
    if not folder.is_dir():
        raise BadDirectory("the directory of feed files does not exist")
    return [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".csv")]


def read_entries(folder: Path) -> list[Entry]:
    """What all of them state. Raises BadDirectory."""
    return [entry for path in feed_files(folder) for entry in _entries(path)]


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
