"""Break-glass: only with a reason, for one patient, one person and one platform, and over when it is over."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest
from sqlalchemy import text as text_of

import engines
from auth.stage import prepare
from wardmesh_auth.break_glass import LIFE_SECONDS, BreakGlass, CloseGlass, OpenGlass, Passes
from wardmesh_auth.database import Database, engine_for
from wardmesh_auth.refusals import PassRefused
from wardmesh_auth.revocations import Revocations
from wardmesh_common.contracts import Call
from wardmesh_common.errors import BadRequest
from wardmesh_common.questions import SessionRevoked
from wardmesh_common.record_class import announced, classify
from wardmesh_common.vocabulary import Emergency, Face, Interaction, Principal

pytestmark = pytest.mark.anyio

NURSE = Principal(id="i:nurse", roles=("Nurse",), session="s1")
OTHER = Principal(id="i:other", roles=("Nurse",), session="s2")
ASKED = OpenGlass(platform_id="store", patient_id="p1", reason_code="unconscious", reason="found without papers")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def passes(clock: Clock, closed: set[str] | None = None) -> Passes:
    over = closed if closed is not None else set[str]()
    return Passes(bytes(32), lambda name, _principal, _issued: name in over, clock)


def call_of(principal: Principal, tool: str) -> Call:
    return Call(
        id="c",
        reply_to="",
        face=Face.REST,
        tool=tool,
        interaction=Interaction.OPERATION,
        performer="auth",
        platform="store",
        deadline=0,
        principal=principal,
    )


@pytest.mark.requirement("B-14")
def test_a_pass_is_good_for_its_person_and_platform_until_one_second_after_it_is_over() -> None:
    clock = Clock()
    text, issued = passes(clock).issue(NURSE, ASKED, "store")
    clock.now += LIFE_SECONDS - 1
    # Every replica derives the same key.
    assert passes(clock).read(text, NURSE, "store") == issued
    for person, platform in ((OTHER, "store"), (NURSE, "epic"), (Principal(id="anonymous"), "store")):
        with pytest.raises(PassRefused):
            passes(clock).read(text, person, platform)
    clock.now += 2
    with pytest.raises(PassRefused, match="over"):
        passes(clock).read(text, NURSE, "store")


@pytest.mark.requirement("B-14")
def test_a_pass_ends_with_the_session_in_which_it_was_opened_whoever_of_the_same_person_carries_it() -> None:
    ended: set[str] = set()
    text, issued = passes(Clock(), ended).issue(NURSE, ASKED, "store")
    agent = msgspec.structs.replace(NURSE, session="")  # the same person, with a token
    assert passes(Clock(), ended).read(text, agent, "store") == issued
    ended.add(NURSE.session)
    for person in (NURSE, agent):
        with pytest.raises(PassRefused, match="over"):
            passes(Clock(), ended).read(text, person, "store")


@pytest.mark.requirement("B-14")
async def test_a_closed_pass_is_remembered_as_long_as_it_would_last_however_short_sessions_are(
    postgres: engines.Postgres,
) -> None:
    await prepare(postgres.url())
    engine = engine_for(postgres.url())
    database = Database(engine)
    now = time.time()
    kept = Revocations(database, lambda: now, session_seconds=60.0)
    async with database.transaction() as connection:
        event = await kept.write(connection, SessionRevoked(session="the-pass"))
        query = text_of("SELECT extract(epoch FROM keep_until - revoked_at) FROM auth.revocation")
        seconds = float((await connection.execute(query)).scalar_one())
    await database.close()
    assert seconds >= LIFE_SECONDS
    kept.heard(event)
    assert kept.session_revoked("the-pass", "i:nurse", now)


@pytest.mark.requirement("B-14")
@pytest.mark.parametrize(
    "change",
    [{"reason": ""}, {"reason": "  \n"}, {"reason_code": ""}, {"reason_code": "curious"}],
)
def test_without_a_reason_in_words_and_a_code_of_the_list_nothing_is_opened(change: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="reason"):
        passes(Clock()).issue(NURSE, msgspec.structs.replace(ASKED, **change), "store")


@pytest.mark.requirement("B-14")
def test_what_is_not_wholly_a_pass_of_ours_is_refused_in_the_same_words_and_a_pass_tells_nothing() -> None:
    clock = Clock()
    text, _ = passes(clock).issue(NURSE, ASKED, "store")
    foreign, _ = Passes(bytes([1] * 32), lambda _name, _principal, _issued: False, clock).issue(NURSE, ASKED, "store")
    flipped = text[:-5] + ("A" if text[-5] != "A" else "B") + text[-4:]
    for bad in (flipped, foreign, text[:-4], "x", "é", "A" * 9000, "p1"):
        with pytest.raises(PassRefused) as refused:
            passes(clock).read(bad, NURSE, "store")
        assert refused.value.problem.detail == "The emergency access is not valid."
    assert "papers" not in text


@pytest.mark.requirement("B-14")
def test_opening_and_closing_are_records_of_their_own_class_and_a_closed_pass_is_over_at_once() -> None:
    closed: set[str] = set()

    async def close(name: str) -> None:
        closed.add(name)

    async def admit(_principal: Principal, _emergency: Emergency) -> None:
        pass

    desk = BreakGlass(passes(Clock(), closed), admit, close)
    opening, closing = call_of(NURSE, "open_break_glass"), call_of(NURSE, "close_break_glass")
    outcome = asyncio.run(desk.open(opening, ASKED))
    said = msgspec.json.decode(outcome.body)
    assert outcome.event == "break_glass.opened" and said["expires_in"] == 900
    assert opening.emergency is not None and opening.emergency.reason == "found without papers"
    assert classify(opening)[0] == "break_glass" and announced(opening)
    outcome = asyncio.run(desk.close(closing, CloseGlass(platform_id="store", emergency=said["break_glass"])))
    assert outcome.event == "break_glass.closed" and classify(closing)[0] == "break_glass"
    assert closing.emergency == opening.emergency
    with pytest.raises(PassRefused, match="over"):
        passes(Clock(), closed).read(said["break_glass"], NURSE, "store")
