"""Nobody opens one emergency access after the other: so many at once, so many in a day, on all replicas together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import pytest
from sqlalchemy import text as text_of

import engines
from auth.stage import prepare
from auth.test_break_glass import ASKED, NURSE, OTHER, call_of
from wardmesh_auth.break_glass import LIFE_SECONDS, BreakGlass, Passes
from wardmesh_auth.break_glass_limit import Openings
from wardmesh_auth.database import Database, engine_for
from wardmesh_auth.refusals import PassLimit
from wardmesh_auth.revocations import Revocations
from wardmesh_auth.settings import read_settings
from wardmesh_common.leaf import draft_events
from wardmesh_common.questions import SessionRevoked
from wardmesh_common.settings import BadSettings
from wardmesh_common.station import outcome_of
from wardmesh_common.vocabulary import Emergency, Principal

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("B-14")]

DAY = 86_400.0


class Replica:
    """One auth, as far as passes are concerned, with a clock that a test may move."""

    def __init__(self, database: Database, at_once: int, per_day: int) -> None:
        self.now = 1_000_000.0
        self.database = database
        self.revocations = Revocations(database, lambda: self.now)
        self.openings = Openings(
            database, self.revocations.session_revoked, at_once=at_once, per_day=per_day, clock=lambda: self.now
        )

    async def open(self, principal: Principal = NURSE) -> Emergency:
        emergency = Emergency(
            id=os.urandom(8).hex(), platform="store", patient="p", reason_code="other", reason="r", expires=0
        )
        await self.openings.admit(principal, emergency)
        return emergency

    async def end(self, event: SessionRevoked, *hearing: Replica) -> None:
        async with self.database.transaction() as connection:
            event = await self.revocations.write(connection, event)
        for replica in hearing:
            replica.revocations.heard(event)

    async def later(self, seconds: float) -> None:
        """Time passes, for the database too."""
        self.now += seconds
        async with self.database.transaction() as connection:
            older = "UPDATE auth.break_glass SET opened_at = opened_at - make_interval(secs => :seconds)"
            await connection.execute(text_of(older), {"seconds": seconds})


@asynccontextmanager
async def replicas(url: str, at_once: int = 2, per_day: int = 100) -> AsyncGenerator[list[Replica]]:
    await prepare(url)
    databases = [Database(engine_for(url)) for _ in range(2)]
    try:
        yield [Replica(database, at_once, per_day) for database in databases]
    finally:
        for database in databases:
            await database.close()


async def test_so_many_are_open_at_once_and_closing_or_signing_out_makes_room(postgres: engines.Postgres) -> None:
    async with replicas(postgres.url()) as (one, two):
        first = await one.open()
        await two.open()
        for replica in (one, two):
            with pytest.raises(PassLimit, match="2 emergency accesses open at once") as refused:
                await replica.open()
            problem = refused.value.problem
            assert (problem.status, problem.code) == (403, "break_glass_limit")
            assert 0 < problem.retry_after <= LIFE_SECONDS
        await two.open(OTHER)
        await one.open(msgspec.structs.replace(NURSE, tenant="elsewhere"))
        # Closed on one replica; the other has heard nothing of it.
        await one.end(SessionRevoked(session=first.id))
        await two.open()
        with pytest.raises(PassLimit):
            await one.open()
        await two.end(SessionRevoked(session=NURSE.session))
        await one.open(msgspec.structs.replace(NURSE, session="s9"))


async def test_what_is_over_makes_room_until_the_day_is_full(postgres: engines.Postgres) -> None:
    async with replicas(postgres.url(), at_once=2, per_day=3) as (one, _):
        await one.open()
        await one.open()
        await one.later(LIFE_SECONDS + 1)
        await one.open()
        with pytest.raises(PassLimit, match="3 emergency accesses in 24 hours") as refused:
            await one.open()
        assert DAY - LIFE_SECONDS - 60 < refused.value.problem.retry_after < DAY - LIFE_SECONDS
        await one.later(DAY - LIFE_SECONDS)
        await one.open()
        await one.openings.sweep()
        async with one.database.transaction() as connection:
            rows = await connection.execute(text_of("SELECT count(*) FROM auth.break_glass"))
            assert rows.scalar_one() == 2


async def test_of_many_that_come_at_once_no_more_pass_than_may(postgres: engines.Postgres) -> None:
    async with replicas(postgres.url(), at_once=3) as both:
        tries = [replica.open() for replica in both for _ in range(6)]
        ended = await asyncio.gather(*tries, return_exceptions=True)
        assert [type(one) for one in ended if isinstance(one, BaseException)] == [PassLimit] * 9


async def test_without_the_database_a_replica_counts_for_itself_and_tells_when_it_is_back(
    postgres: engines.Postgres,
) -> None:
    async with replicas(postgres.url(), at_once=3) as (one, two):
        async with one.database.transaction() as connection:
            await connection.execute(text_of("ALTER TABLE auth.break_glass RENAME TO away"))
        try:
            first = await one.open()
            await one.open()
            await one.open()
            with pytest.raises(PassLimit):
                await one.open()
            one.revocations.heard(SessionRevoked(session=first.id, at=one.now))
            await one.open()
        finally:
            async with two.database.transaction() as connection:
                await connection.execute(text_of("ALTER TABLE auth.away RENAME TO break_glass"))
        await two.end(SessionRevoked(session=first.id))
        # One that is refused tells of the others as well.
        for replica in (one, two):
            with pytest.raises(PassLimit):
                await replica.open()


async def test_many_that_come_at_once_pass_a_lost_database_no_more_often(postgres: engines.Postgres) -> None:
    async with replicas(postgres.url(), at_once=3) as (one, two):
        async with one.database.transaction() as connection:
            await connection.execute(text_of("ALTER TABLE auth.break_glass RENAME TO away"))
        try:
            ended = await asyncio.gather(*(one.open() for _ in range(9)), return_exceptions=True)
        finally:
            async with two.database.transaction() as connection:
                await connection.execute(text_of("ALTER TABLE auth.away RENAME TO break_glass"))
        assert [type(each) for each in ended if isinstance(each, BaseException)] == [PassLimit] * 6
        with pytest.raises(PassLimit):  # each of the three is told, none was forgotten
            await one.open()
        with pytest.raises(PassLimit):
            await two.open()


async def test_a_refusal_is_a_record_about_the_patient_with_its_reason_sealed() -> None:
    async def admit(_principal: Principal, _emergency: Emergency) -> None:
        raise PassLimit("too many")

    async def close(_name: str) -> None:
        raise AssertionError("nothing was opened")

    desk = BreakGlass(Passes(bytes(32), lambda _name, _principal, _issued: False), admit, close)
    call = call_of(NURSE, "open_break_glass")
    with pytest.raises(PassLimit) as refused:
        await desk.open(call, ASKED)
    (draft,) = draft_events(call, outcome_of(refused.value), (), 0.0)
    assert draft.event_class == "break_glass" and draft.patient == "store/Patient/p1"
    assert draft.data["outcome"] == {"code": "denied", "http": 403, "reason": "break_glass_limit"}
    assert draft.data["purpose_of_use"] == "BTG" and draft.data["event"] == "break_glass.refused"
    assert "papers" not in str(draft.data) and draft.secrets["break_glass_reason"] == ASKED.reason


def test_a_limit_below_one_would_close_the_way_and_is_refused() -> None:
    environ = {
        "WARDMESH_NATS_URL": "nats://x",
        "WARDMESH_ISSUER": "http://x",
        "WARDMESH_DATABASE_URL": "postgresql://x",
        "WARDMESH_TOKEN_SEAL_KEY": "A" * 43,
    }
    settings = read_settings(environ)
    assert (settings.break_glass_at_once, settings.break_glass_per_day) == (5, 20)
    for name in ("WARDMESH_BREAK_GLASS_AT_ONCE", "WARDMESH_BREAK_GLASS_PER_DAY"):
        with pytest.raises(BadSettings, match=name):
            read_settings(environ | {name: "0"})
