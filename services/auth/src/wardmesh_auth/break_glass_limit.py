"""How many passes of break-glass one person may open at once and in a day, on all replicas together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct
from sqlalchemy import exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_auth.bounded import Bounded
from wardmesh_auth.break_glass import LIFE_SECONDS
from wardmesh_auth.database import Database
from wardmesh_auth.refusals import PassLimit
from wardmesh_auth.tables import break_glass, revocation
from wardmesh_common.errors import Unavailable
from wardmesh_common.vocabulary import Emergency, Principal

_DAY_SECONDS = 86_400.0
_WAIT_SECONDS = 1.5  # for the database: an emergency does not wait long for a count
_MOST_PEOPLE = 10_000


class _Opened(Struct, frozen=True):
    id: str
    session: str
    at: float  # on the clock of this replica


class _Past(Struct, frozen=True):
    age: float
    over: bool  # closed or signed out before its time


class Openings:
    """Counted in the database. While that is away each replica counts what it has opened itself, and tells later."""

    def __init__(
        self,
        database: Database,
        revoked: Callable[[str, str, float], bool],
        *,
        at_once: int,
        per_day: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._revoked = revoked
        self._at_once = at_once
        self._per_day = per_day
        self._clock = clock
        self._own: Bounded[tuple[str, str], tuple[_Opened, ...]] = Bounded(_MOST_PEOPLE)

    async def admit(self, principal: Principal, emergency: Emergency) -> None:
        """Counts this one in. Raises PassLimit when it is one too many."""
        now = self._clock()
        person = (principal.tenant, principal.id)
        opened = _Opened(emergency.id, principal.session, now)
        try:
            async with self._database.transaction(_WAIT_SECONDS) as connection:
                # One after the other: two that come at once must not both be the last that fits.
                lock = func.hashtextextended("\x1f".join(("break-glass", *person)), 0)
                await connection.execute(select(func.pg_advisory_xact_lock(lock)))
                await self._write(connection, principal, self._mine(person, now), now)
                refusal = self._judge(await _past(connection, principal))
                if refusal is None:
                    await self._write(connection, principal, [opened], now)
        except Unavailable:
            # Looked at only now, and nothing is waited for until it is counted: others came while this one waited.
            mine = self._mine(person, now)
            refusal = self._judge([_Past(now - one.at, self._ended(one, principal)) for one in mine])
        if refusal is not None:
            raise refusal
        self._own.put(person, (*self._mine(person, now), opened), _DAY_SECONDS)

    def _mine(self, person: tuple[str, str], now: float) -> tuple[_Opened, ...]:
        return tuple(one for one in self._own.get(person) or () if one.at > now - _DAY_SECONDS)

    async def sweep(self) -> None:
        """Delete rows that count no more."""
        old = break_glass.c.opened_at < func.now() - _seconds(_DAY_SECONDS)
        async with self._database.transaction() as connection:
            await connection.execute(break_glass.delete().where(old))

    async def _write(
        self, connection: AsyncConnection, principal: Principal, opened: Iterable[_Opened], now: float
    ) -> None:
        """By their age, so that it does not matter how the clocks differ."""
        rows = [
            {
                "id": one.id,
                "tenant": principal.tenant,
                "principal_id": principal.id,
                "session": one.session,
                "opened_at": func.now() - _seconds(max(0.0, now - one.at)),
            }
            for one in opened
        ]
        if rows:
            await connection.execute(insert(break_glass).values(rows).on_conflict_do_nothing(index_elements=["id"]))

    def _ended(self, one: _Opened, principal: Principal) -> bool:
        return any(self._revoked(name, principal.id, one.at) for name in (one.id, one.session))

    def _judge(self, past: Sequence[_Past]) -> PassLimit | None:
        still = [one.age for one in past if not one.over and one.age < LIFE_SECONDS]
        if wait := _wait(still, self._at_once, LIFE_SECONDS):
            return PassLimit(
                f"One person may have {self._at_once} emergency accesses open at once: close one that is over.",
                retry_after=wait,
            )
        if wait := _wait([one.age for one in past], self._per_day, _DAY_SECONDS):
            return PassLimit(f"One person may open {self._per_day} emergency accesses in 24 hours.", retry_after=wait)
        return None


def _wait(ages: Iterable[float], most: int, seconds: float) -> int:
    """Until there is room for one more; 0 when there is."""
    oldest_first = sorted(ages, reverse=True)
    over = len(oldest_first) - most
    return 0 if over < 0 else max(1, math.ceil(seconds - oldest_first[over]))


async def _past(connection: AsyncConnection, principal: Principal) -> list[_Past]:
    """Of the last 24 hours."""
    table = break_glass.c
    ended = exists().where(
        or_(
            (revocation.c.kind == "session") & revocation.c.subject.in_([table.id, table.session]),
            (revocation.c.kind == "principal")
            & (revocation.c.subject == table.principal_id)
            & (revocation.c.revoked_at >= table.opened_at),
        )
    )
    age = func.extract("epoch", func.now() - table.opened_at)
    query = select(age, ended).where(
        table.tenant == principal.tenant,
        table.principal_id == principal.id,
        table.opened_at > func.now() - _seconds(_DAY_SECONDS),
    )
    return [_Past(float(found[0]), bool(found[1])) for found in (await connection.execute(query)).all()]


def _seconds(number: float) -> object:
    return func.make_interval(0, 0, 0, 0, 0, 0, number)
