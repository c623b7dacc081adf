"""An intent without an outcome ends as unterminated, once, however many replicas watch."""

from __future__ import annotations

import asyncio
import json

import pytest

from audit_world import World, cancel, make_call, make_outcome, recorder_on, until, world
from engines import Nats, Postgres
from wardmesh_audit.app import connector
from wardmesh_audit.watch import Watch
from wardmesh_common.contracts import Touched
from wardmesh_common.vocabulary import Interaction

pytestmark = pytest.mark.anyio

TOUCHED = (Touched(patient="store/Patient/p1", type="Patient", ids=("p1",), count=1),)


async def unterminated(w: World) -> list[dict[str, object]]:
    rows = await w.query("select leaf from event where outcome = 'unterminated' order by seq")
    return [json.loads(row["leaf"]) for row in rows]


def watch(w: World, seconds: float) -> Watch:
    connect = connector(w.url("audit_detect"))
    return Watch(w.nc, connect, unterminated_seconds=seconds, silent_seconds=3600, ping_seconds=0.05)


@pytest.mark.requirement("AU-115")
async def test_an_intent_whose_station_died_becomes_unterminated_exactly_once(broker: Nats, server: Postgres) -> None:
    write = Interaction.UPDATE
    async with world(broker, server) as w, w.writing(2), recorder_on(w) as recorder:
        for number in range(3):
            await recorder.intent(make_call(number, interaction=write), TOUCHED)
        await recorder.outcome(make_call(1, interaction=write), make_outcome("p1"))
        await w.wait_size(5)
        conns = [await w.connect("audit_detect") for _ in range(3)]
        try:
            # Nothing is over yet.
            await watch(w, 300).turn(conns[0])
            assert await unterminated(w) == []
            watches = [watch(w, 0) for _ in conns]

            async def both() -> bool:
                await asyncio.gather(*(one.turn(conn) for one, conn in zip(watches, conns, strict=True)))
                return len(await unterminated(w)) >= 2

            await until(both)
            for _ in range(3):
                await both()
            await w.send(b"marker")
            await w.wait_size(8)
            ends = await unterminated(w)
            # Two writers: the order in the ledger is theirs.
            rows = await w.query("select request_id, event_id, patient_ref from event where phase = 'intent'")
            intents = {row["request_id"]: str(row["event_id"]) for row in rows}
            ended = {end["data"]["request"]["id"]: end["data"]["corrects"] for end in ends}  # type: ignore[index]
            assert ended == {name: intents[name] for name in ("call-0", "call-2")} and len(ends) == 2
            assert {end["data"]["patient"]["pseudonym"] for end in ends} == {rows[0]["patient_ref"].hex()}  # type: ignore[index]
            (state,) = await w.query("select next_index from consumer_state where name = 'intents'")
            assert state["next_index"] > 3
            assert await w.size() == 8
        finally:
            for conn in conns:
                await conn.close()


@pytest.mark.requirement("AU-115")
async def test_the_role_finds_them_by_itself(broker: Nats, server: Postgres) -> None:
    async with world(broker, server) as w, w.writing(), recorder_on(w) as recorder:
        await recorder.intent(make_call(7, interaction=Interaction.DELETE), TOUCHED)
        task = asyncio.create_task(watch(w, 0.2).run())
        try:

            async def there() -> bool:
                return bool(await unterminated(w))

            await until(there)
        finally:
            await cancel(task)
