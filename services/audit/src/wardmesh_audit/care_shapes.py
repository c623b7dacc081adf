"""What is read of FHIR resources that say who treats whom: references, states and times, and nothing else."""

from __future__ import annotations

import calendar
from datetime import date
from typing import Final

import msgspec
from msgspec import Raw, Struct

# A resource in one of these states says nothing about treatment.
VOID: Final[dict[str, frozenset[str]]] = {
    "Encounter": frozenset({"cancelled", "entered-in-error"}),
    "CareTeam": frozenset({"proposed", "suspended", "inactive", "entered-in-error"}),
    "Appointment": frozenset({"proposed", "waitlist", "cancelled", "noshow", "entered-in-error"}),
}
KINDS: Final = frozenset({*VOID, "Patient", "PractitionerRole"})


class BadCareData(Exception):
    """Something is no FHIR resource; names the place, never what stands there."""


class Reference(Struct, frozen=True):
    reference: str = ""


class Period(Struct, frozen=True):
    start: str = ""
    end: str = ""


class Participant(Struct, frozen=True):
    """Of an Encounter (`individual`, in R5 `actor`), an Appointment (`actor`) or a CareTeam (`member`)."""

    individual: Reference = Reference()
    actor: Reference = Reference()
    member: Reference = Reference()
    status: str = ""
    period: Period = Period()

    @property
    def who(self) -> str:
        return (self.individual.reference or self.actor.reference) or self.member.reference


class Kind(Struct, frozen=True, rename="camel"):
    resource_type: str = ""


class Resource(Struct, frozen=True, rename="camel"):
    """A patient, what a patient is treated in, or the role in which somebody does."""

    resource_type: str
    id: str = ""
    status: str = ""
    subject: Reference = Reference()
    participant: tuple[Participant, ...] = ()
    period: Period = Period()
    actual_period: Period = Period()  # of an Encounter in R5
    start: str = ""  # of an Appointment
    end: str = ""
    general_practitioner: tuple[Reference, ...] = ()
    practitioner: Reference = Reference()  # of a PractitionerRole

    @property
    def when(self) -> Period:
        if self.resource_type == "Appointment":
            return Period(self.start, self.end or self.start)
        return self.actual_period if self.actual_period != Period() else self.period


class Entry(Struct, frozen=True, rename="camel"):
    full_url: str = ""
    resource: Raw = Raw(b"")


class Bundle(Struct, frozen=True):
    entry: tuple[Entry, ...] = ()


def named(reference: str) -> str:
    """`Type/id` of a reference or an address, a URN as it is; "" for what is contained or nothing."""
    if reference.startswith("urn:"):
        return reference
    parts = reference.partition("/_history/")[0].rsplit("/", 2)
    return "/".join(parts[-2:]) if len(parts) >= 2 else ""


def covers(period: Period, first: date, last: date) -> bool:
    """Whether the two have a day in common; an end that is not said is open. Raises BadCareData."""
    begins, ends = _day(period.start, end=False), _day(period.end, end=True)
    return (begins is None or begins <= last) and (ends is None or ends >= first)


def _day(text: str, *, end: bool) -> date | None:
    """FHIR times may be as short as a year: then its first or its last day."""
    if not text:
        return None
    try:
        year, month, day = (int(part) if part else 0 for part in (text[:4], text[5:7], text[8:10]))
        month = month or (12 if end else 1)
        return date(year, month, day or (calendar.monthrange(year, month)[1] if end else 1))
    except (ValueError, IndexError, calendar.IllegalMonthError):
        raise BadCareData("a time is not one of FHIR") from None


kind_of = msgspec.json.Decoder(Kind)
bundle_of = msgspec.json.Decoder(Bundle)
resource_of = msgspec.json.Decoder(Resource)
