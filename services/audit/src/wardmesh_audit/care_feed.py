"""Makes the feed of who treats whom from FHIR data: Encounter, CareTeam, Appointment and Patient, NDJSON or Bundles."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from pathlib import Path

import msgspec
from msgspec import Struct

from wardmesh_audit.care_shapes import (
    KINDS,
    VOID,
    BadCareData,
    Resource,
    bundle_of,
    covers,
    kind_of,
    named,
    resource_of,
)

_PATIENT, _PERSON, _ROLE = "Patient/", "Practitioner/", "PractitionerRole/"


class Team(Struct, frozen=True, kw_only=True):
    """One person of the feed, as detection reads it (`detect_people.Entry`)."""

    patients: tuple[str, ...]
    care_team: tuple[str, ...]


class CareFeed:
    """Takes resources in any order. A treatment counts from `days` before it begins to `days` after it ends."""

    def __init__(self, today: date, days: int) -> None:
        self._first, self._last = today - timedelta(days=days), today + timedelta(days=days)
        self._pairs: set[tuple[str, str]] = set()  # who is treated, by whom; "" by nobody
        self._roles: dict[str, str] = {}  # of a PractitionerRole, who has it
        self._names: dict[str, str] = {}  # inside a Bundle a resource may be called by its fullUrl
        self.resources = 0
        self.strangers: set[str] = set()  # who treats somebody, and is no actor that we were told of

    def read(self, path: Path) -> None:
        """A file of NDJSON, a Bundle or one resource. Raises BadCareData."""
        try:
            if path.suffix == ".ndjson":
                with path.open("rb") as file:
                    for number, line in enumerate(file, 1):
                        if line.strip():
                            self._take(line, f"{path.name}: line {number}")
            else:
                self._take(path.read_bytes(), path.name)
        except OSError:
            raise BadCareData(f"{path.name}: the file cannot be read") from None

    def teams(self, platform: str, actors: Mapping[str, str]) -> Iterator[Team]:
        """One for every patient in the data; a team without members says that nobody treats this patient."""
        found: dict[str, set[str]] = defaultdict(set)
        for patient, who in self._pairs:
            found[self._resolved(patient)].add(self._resolved(self._roles.get(self._resolved(who), who)))
        for patient in sorted(name for name in found if name.startswith(_PATIENT)):
            people = {who for who in found[patient] if who.startswith((_PERSON, _ROLE))}
            self.strangers |= people - actors.keys()
            team = sorted({actors[who] for who in people & actors.keys()})
            yield Team(patients=(f"{platform}/{patient}",), care_team=tuple(team))

    def _take(self, raw: bytes, place: str) -> None:
        try:
            kind = kind_of.decode(raw).resource_type
            if kind == "Bundle":
                for number, entry in enumerate(bundle_of.decode(raw).entry, 1):
                    if bytes(entry.resource):
                        self._resource(bytes(entry.resource), entry.full_url, f"{place}: entry {number}")
            elif kind:
                self._resource(raw, "", place)
            else:
                raise BadCareData(f"{place}: no FHIR resource")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # its text may quote what stands there
            raise BadCareData(f"{place}: no FHIR resource") from None

    def _resource(self, raw: bytes, address: str, place: str) -> None:
        if kind_of.decode(raw).resource_type not in KINDS:
            return
        try:
            found = resource_of.decode(raw)
            self._note(found, address)
        except (msgspec.MsgspecError, BadCareData):
            raise BadCareData(f"{place}: not valid as the FHIR resource that it says it is") from None

    def _note(self, found: Resource, address: str) -> None:
        self.resources += 1
        kind, name = found.resource_type, f"{found.resource_type}/{found.id}"
        if address:
            self._names[named(address)] = name
        if kind == "PractitionerRole":
            self._roles[name] = named(found.practitioner.reference)
        elif kind == "Patient":
            self._pairs.add((name, ""))
            self._pairs |= {(name, named(each.reference)) for each in found.general_practitioner}
        elif found.status not in VOID[kind] and covers(found.when, self._first, self._last):
            there = [each for each in found.participant if covers(each.period, self._first, self._last)]
            people = {named(each.who) for each in there if each.status != "declined"}
            # An Appointment has the patient among those who take part.
            patients = {who for who in people if who.startswith((_PATIENT, "urn:"))} | {named(found.subject.reference)}
            self._pairs |= {(patient, who) for patient in patients for who in people | {""}}

    def _resolved(self, name: str) -> str:
        return self._names.get(name, name)


def read_actors(path: Path) -> dict[str, str]:
    """`practitioner,actor`: the id of a FHIR Practitioner, and that person's id in the ledger. Raises BadCareData."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, ValueError, csv.Error):
        raise BadCareData(f"{path.name}: the file cannot be read") from None
    actors: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        practitioner, actor = ((row.get(column) or "").strip() for column in ("practitioner", "actor"))
        if not practitioner or not actor:
            raise BadCareData(f"{path.name}: row {number} needs practitioner and actor")
        actors[_PERSON + practitioner.removeprefix(_PERSON)] = actor
    return actors
