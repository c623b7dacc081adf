"""A made-up month of a made-up hospital: ordinary work with its harmless oddities. The same seed makes the same."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from wardmesh_audit.detect_people import Entry
from wardmesh_audit.rule_cases import Moment

START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
STAFF, PATIENTS, VIPS = 60, 900, 6
DAY, NIGHT = "mon-fri 07:00-19:00", "mon-sun 19:00-07:00"
EMPLOYER = "North Hospital"
_PANEL = 18  # patients whom one member of staff looks after
_COMMON = ("Common", "Usual", "Frequent", "Everywhere")


class Step(Struct, frozen=True):
    """One event, and the planted incidents it belongs to."""

    moment: Moment
    incidents: tuple[int, ...] = ()


def patient(n: int) -> str:
    return f"ward/Patient/{n}"


class Ward:
    """The people of the hospital and what they do all day."""

    def __init__(self, seed: int, days: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 - traffic, not secrets
        self.days = days
        self.steps: list[Step] = []
        self.patients = [self._patient(n) for n in range(PATIENTS)]
        self.staff = [_member(n) for n in range(STAFF)]

    def work(self) -> None:
        """A month of it."""
        for day in range(self.days):
            weekend = (START + timedelta(days=day)).weekday() > 4
            for number, member in enumerate(self.staff):
                if member.schedule == NIGHT or not weekend:
                    self._shift(member, number, day)

    def do(self, at: datetime, actor: str, whom: str, *incidents: int, outcome: str = "success", **more: str) -> None:
        moment = Moment(at=at, actor=actor, patient=whom, outcome=outcome, **more)  # pyright: ignore[reportArgumentType]
        self.steps.append(Step(moment, incidents))

    def somebody(self) -> str:
        """A patient who is on no list."""
        return patient(self.random.randint(VIPS, PATIENTS - 1))

    def several(self, at: datetime, actor: str, count: int, seconds: float, *incidents: int) -> None:
        """As many patients one after the other."""
        for n, number in enumerate(self.random.sample(range(VIPS, PATIENTS), count)):
            self.do(at + timedelta(seconds=n * seconds), actor, patient(number), *incidents)

    def _patient(self, n: int) -> Entry:
        common = n % 25 == 0 or self.random.random() < 0.01
        return Entry(
            patients=(patient(n),),
            surname=self.random.choice(_COMMON) if common else f"Name{n % 400}",
            address=f"{n} Elm Street",
            employer=EMPLOYER if n % 300 == 107 else f"Works {n % 40}",
            lists=("vip",) if n < VIPS else (),
        )

    def _shift(self, member: Entry, number: int, day: int) -> None:
        pick = self.random
        night = member.schedule == NIGHT
        begin = START + timedelta(days=day, hours=20 if night else 8)
        panel = [patient(VIPS + (number * 14 + k) % (PATIENTS - VIPS)) for k in range(_PANEL)]
        for _ in range(pick.randint(8, 22)):
            at = begin + timedelta(minutes=pick.uniform(0, 9 * 60))
            self.do(at, member.actor, pick.choice(panel), outcome="denied" if pick.random() < 0.01 else "success")
        if not night and pick.random() < 0.01:  # stayed longer than the schedule says
            self.do(begin + timedelta(hours=11, minutes=pick.uniform(5, 40)), member.actor, panel[0])
        weekday = (START + timedelta(days=day)).weekday()
        if number % 20 == 3 and weekday == 0:  # the desk prints its list: many patients, fewer than is alarming
            self.several(begin + timedelta(minutes=5), member.actor, pick.randint(24, 32), 60)
        if number % 30 == 8 and weekday == 2:  # an application that was set up wrongly asks again and again
            for n in range(pick.randint(8, 17)):
                self.do(begin + timedelta(seconds=9 * n), member.actor, panel[1], outcome="denied")


def _member(n: int) -> Entry:
    return Entry(
        actor=f"i|staff{n}",
        surname=_COMMON[n % 4] if n % 12 == 0 else f"Staff{n}",
        address=f"{n} Oak Road",
        family=f"family {n}",
        employer=EMPLOYER,
        schedule=NIGHT if n % 10 == 9 else DAY,
    )
