"""The incidents planted in a made-up month: of every rule some, each known by the rule that ought to find it."""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import Struct

from wardmesh_audit.detect_month import DAY, EMPLOYER, NIGHT, START, VIPS, Step, Ward, patient
from wardmesh_audit.detect_people import Entry
from wardmesh_audit.rule_cases import Moment

EACH = 4  # incidents of every kind
_REVIEW_DAYS = 4  # a use of emergency access needs so many days after it to be overdue


class Month(Struct, frozen=True):
    people: list[Entry]
    steps: list[Step]  # in the order of their time
    incidents: list[str]  # the rule of each
    end: datetime


def make_month(seed: int, days: int) -> Month:
    """Deterministic: nothing but the arguments decides."""
    ward = Ward(seed, days)
    ward.work()
    plants = _Plants(ward)
    for n in range(EACH):
        plants.single(n)
        plants.emergencies()
        plants.limit()
        plants.bulk()
        plants.burst()
    steps = sorted(ward.steps, key=lambda step: step.moment.at)
    people = [*ward.patients, *ward.staff, *_extras()]
    return Month(people, steps, plants.incidents, START + timedelta(days=days))


def _extras() -> list[Entry]:
    """Relatives, neighbours and colleagues of staff, staff who are patients, and people who ought not to be here."""
    made: list[Entry] = []
    for n in range(EACH):
        made += [
            Entry(patients=(f"ward/Patient/relative{n}",), family=f"FAMILY {n + 1}", surname="Other"),
            Entry(patients=(f"ward/Patient/neighbour{n}",), address=f"{n + 13}  OAK road", surname="Else"),
            Entry(patients=(f"ward/Patient/colleague{n}",), employer=EMPLOYER.upper(), surname="Third"),
            Entry(actor=f"i|both{n}", patients=(f"ward/Patient/both{n}",), schedule=DAY),
        ]
        gone = {"status": "terminated", "status_since": START - timedelta(days=9)}
        idle = {"last_active": START - timedelta(days=120)}
        made.append(Entry(actor=f"i|gone{n}", **(gone if n % 2 else idle)))  # pyright: ignore[reportArgumentType]
    return made


class _Plants:
    def __init__(self, ward: Ward) -> None:
        self._ward = ward
        self.incidents: list[str] = []

    def single(self, n: int) -> None:
        """Those that one access makes."""
        for rule, actor, whom in (
            ("vip", self._actor(), patient(n % VIPS)),
            ("self", f"i|both{n}", f"ward/Patient/both{n}"),
            ("family", f"i|staff{n + 1}", f"ward/Patient/relative{n}"),
            ("same_surname_or_address", f"i|staff{n + 13}", f"ward/Patient/neighbour{n}"),
            ("coworker", self._actor(), f"ward/Patient/colleague{n}"),
            ("inactive_user", f"i|gone{n}", self._ward.somebody()),
        ):
            self._ward.do(self._at(11), actor, whom, self._new(rule))
        found = self._new("no_relationship")
        self._ward.do(self._at(11), self._actor(), self._ward.somebody(), found, relationship="none")
        self._ward.do(self._at(2), self._actor(), self._ward.somebody(), self._new("after_hours"))

    def emergencies(self) -> None:
        """Two uses of emergency access; of one nobody looks at the review."""
        for reviewed in (True, False):
            found = [self._new("break_glass")]
            if not reviewed:
                found.append(self._new("break_glass_without_follow_up"))
            at, whom = self._at(10, _REVIEW_DAYS), self._ward.somebody()
            moment = Moment(
                at=at, actor=self._actor(), patient=whom, type="break_glass", purpose="BTG", reviewed=reviewed
            )
            self._ward.steps.append(Step(moment, tuple(found)))

    def limit(self) -> None:
        """Somebody wants one emergency access too many, and again."""
        at, actor, found = self._at(15), self._actor(), self._new("break_glass_limit")
        for _ in range(2):
            moment = Moment(
                at=at,
                actor=actor,
                patient=self._ward.somebody(),
                type="break_glass",
                purpose="BTG",
                outcome="denied",
                reason="break_glass_limit",
            )
            self._ward.steps.append(Step(moment, (found,)))
            at += timedelta(minutes=1)

    def bulk(self) -> None:
        at = self._at(13).replace(minute=2)
        self._ward.several(at, self._actor(), self._ward.random.randint(55, 140), 20, self._new("bulk_reading"))

    def burst(self) -> None:
        at, actor, found = self._at(14), self._actor(), self._new("denied_burst")
        for _ in range(self._ward.random.randint(22, 60)):
            at += timedelta(seconds=self._ward.random.uniform(1, 9))
            self._ward.do(at, actor, self._ward.somebody(), found, outcome="denied")

    def _new(self, rule: str) -> int:
        self.incidents.append(rule)
        return len(self.incidents) - 1

    def _actor(self) -> str:
        return self._ward.random.choice([each.actor for each in self._ward.staff if each.schedule != NIGHT])

    def _at(self, hour: int, room: int = 0) -> datetime:
        """Some weekday, at least `room` days before the end."""
        days = [
            START + timedelta(days=n)
            for n in range(max(1, self._ward.days - room))
            if (START + timedelta(days=n)).weekday() < 5
        ]
        return self._ward.random.choice(days) + timedelta(hours=hour, minutes=self._ward.random.uniform(0, 50))
