"""IB-7: an agent gets its name by rule, a DID, and is registered once, by itself, at first contact."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
import pytest
from sqlalchemy import text

import engines
from auth.stage import Stage, stage
from wardmesh_auth.agents import EVENT, Naming, host_of
from wardmesh_auth.break_glass import OpenGlass
from wardmesh_auth.database import Database, engine_for
from wardmesh_common.contracts import Reply
from wardmesh_common.vocabulary import Agent
from wardmesh_gateway.agent import Agents, load_aliases

pytestmark = pytest.mark.anyio
HANGS_SECONDS = 2.9  # so long, and a moment longer, the register waits for its database
DID = "did:web:agents.example:cursoragent"
DEVELOPER = "did:web:dev.example"
CURSOR = Agent(id="cursor-agent-v1.0.0", name="Cursor", version="1.0.0", source="meta")


@pytest.fixture
async def pair(postgres: engines.Postgres, nats: engines.Nats) -> AsyncIterator[Stage]:
    settings = {
        "agents_host": "agents.example",
        "agent_organisation": "St. Mary",
        "developer_did": "did:web:dev.example",
    }
    async with stage(postgres.url(), nats.url, replicas=2, **settings) as ready:
        yield ready


async def registered(scene: Stage) -> list[tuple[str, str, str]]:
    query = text("SELECT id, did, developer_did FROM auth.agent ORDER BY id")
    async with scene.replicas[0].database.transaction() as connection:
        return [tuple(each) for each in (await connection.execute(query)).all()]


@pytest.mark.parametrize(
    ("info", "organisation", "identity", "did"),
    [
        ({"name": "Cursor", "version": "1.0.0"}, "", "cursor-agent-v1.0.0", DID + "v100"),
        ({"name": "My Own Tool"}, "", "my-own-tool-agent", "did:web:agents.example:myowntoolagent"),
        (
            {"name": "Cursor", "version": "1"},
            "Acme",
            "cursor-agent-v1-acme",
            "did:web:agents.example:cursoragentv1acme",
        ),
        (None, "Acme", "unknown-agent", ""),
    ],
)
def test_the_id_and_the_did_follow_from_what_the_client_says(
    info: object, organisation: str, identity: str, did: str
) -> None:
    claimed = Agents(load_aliases()).claimed(info, {}, "meta", "")
    agent = Naming(host="agents.example", organisation=organisation, developer_did="did:web:dev").named(claimed)
    assert (agent.id, agent.did) == (identity, did)
    assert agent.developer_did == ("did:web:dev" if did else "")


def test_a_port_in_the_host_is_written_as_did_web_wants_it() -> None:
    host = host_of("", "http://localhost:8000")
    assert Naming(host=host).named(CURSOR).did == "did:web:localhost%3A8000:cursoragentv100"


async def test_an_agent_is_registered_once_and_recorded_and_policy_sees_it(pair: Stage) -> None:
    one, other = pair.issuer.sign(sub="one"), pair.issuer.sign(sub="other")
    calls = [pair.call(bearer=bearer, agent=CURSOR) for bearer in (one, other) for _ in range(10)]
    async with asyncio.timeout(60):
        assert {reply.status for reply in await asyncio.gather(*calls)} == {200}
    identity = "cursor-agent-v1.0.0-st.-mary"
    did = "did:web:agents.example:cursoragentv100stmary"
    assert await registered(pair) == [(identity, did, DEVELOPER)]
    assert pair.records.events.count(EVENT) == 1
    recorded = next(call for call, outcome in pair.records.outcomes if outcome.event == EVENT)
    assert recorded.principal is not None
    assert (recorded.principal.agent.id, recorded.principal.agent.did) == (identity, did)
    assert {call.principal.agent.did for call in pair.decided if call.principal} == {did}


async def test_who_names_no_agent_is_nobody_and_made_up_names_do_not_fill_the_register(pair: Stage) -> None:
    bearer = pair.issuer.sign(sub="one")
    assert (await pair.call(bearer=bearer)).status == 200
    assert (await pair.call(platform="open", agent=CURSOR)).status == 200, "without a person behind it"
    assert await registered(pair) == []
    for number in range(80):
        agent = Agent(id=f"made-up-{number}-agent", name="x", source="meta")
        assert (await pair.call(bearer=bearer, agent=agent)).status == 200
    assert len(await registered(pair)) <= 2 * 32


async def test_names_that_come_all_at_once_do_not_fill_the_register_either(pair: Stage) -> None:
    bearer = pair.issuer.sign(sub="one")
    assert (await pair.call(bearer=bearer)).status == 200
    agents = [Agent(id=f"at-once-{number}-agent", name="x", source="meta") for number in range(120)]
    async with asyncio.timeout(60):
        replies = await asyncio.gather(*(pair.call(bearer=bearer, agent=agent) for agent in agents))
    assert {reply.status for reply in replies} == {200}
    assert 0 < len(await registered(pair)) <= 2 * 32


async def test_a_database_that_hangs_delays_one_call_of_an_agent_and_no_other(
    pair: Stage, postgres: engines.Postgres
) -> None:
    bearer = pair.issuer.sign(sub="one")
    assert (await pair.call(bearer=bearer)).status == 200
    blocker = Database(engine_for(postgres.url()))
    # A lock that is not given up looks like a database that hangs.
    async with blocker.transaction(20.0) as connection:
        await connection.execute(text("LOCK TABLE auth.agent"))
        first = asyncio.create_task(pair.call(bearer=bearer, agent=CURSOR))
        replies = [first, *(asyncio.create_task(pair.call(bearer=bearer, agent=CURSOR)) for _ in range(20))]
        async with asyncio.timeout(60):
            took = sorted(await asyncio.gather(*(timed(reply) for reply in replies)))
        assert await timed(asyncio.create_task(pair.call(bearer=bearer, agent=CURSOR))) < HANGS_SECONDS
    await blocker.close()
    assert sum(seconds >= HANGS_SECONDS for seconds in took) <= len(pair.replicas), took
    assert {reply.result().status for reply in replies} == {200}


async def test_an_emergency_waits_for_no_register(pair: Stage) -> None:
    bearer = pair.issuer.sign(sub="one")
    assert (await pair.call(bearer=bearer)).status == 200
    (person,) = (call.principal for call in pair.decided)
    assert person is not None
    asked = OpenGlass(platform_id="store", patient_id="p1", reason_code="unconscious", reason="found")
    glass, _ = pair.replicas[0].passes.issue(msgspec.structs.replace(person, session="s"), asked, "store")
    assert (await pair.call(bearer=bearer, agent=CURSOR, emergency=glass)).status == 200
    urgent = pair.decided[-1]
    assert urgent.emergency is not None and urgent.principal is not None
    assert urgent.principal.agent.did and await registered(pair) == []
    assert (await pair.call(bearer=bearer, agent=CURSOR)).status == 200
    assert len(await registered(pair)) == 1, "the next ordinary call does"


async def timed(reply: asyncio.Task[Reply]) -> float:
    begun = time.monotonic()
    await reply
    return time.monotonic() - begun
