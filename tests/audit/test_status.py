"""The ledger audits itself: configuration, transport, start and stop are events."""

from __future__ import annotations

import asyncio
import json

import pytest

from audit_world import World, make_call, make_outcome, recorder_on, until, world
from engines import Nats, Postgres, nats
from wardmesh_audit.settings import AuditSettings
from wardmesh_common.errors import AuditUnavailable
from wardmesh_common.settings import load

pytestmark = pytest.mark.anyio


async def reasons(w: World) -> list[str]:
    rows = await w.query("select leaf from event where event_type = 'audit_status' order by seq")
    return [json.loads(row["leaf"])["data"]["outcome"]["reason"] for row in rows]


async def test_a_changed_configuration_is_told_once_by_all_replicas(broker: Nats, server: Postgres) -> None:
    async with world(broker, server) as w:
        for digest in ("one", "one", "two"):
            async with w.writing(2, configuration=digest) as writers:

                async def asserted(digest: str = digest) -> bool:
                    rows = await w.query("select 1 from configuration where digest = $1", digest)
                    return bool(rows)

                await until(asserted)
                await w.send(digest.encode())
                assert len(writers) == 2
        told = [(facts["before"], facts["digest"]) for reason, facts in w.statuses if reason == "configuration"]
        assert told == [("", "one"), ("one", "two")]


def test_the_digest_is_that_of_the_configuration_and_of_no_secret() -> None:
    first = load(AuditSettings, {"WARDMESH_AUDIT_SIGNING_KEY": "a" * 43})
    assert first.digest == load(AuditSettings, {"WARDMESH_AUDIT_SIGNING_KEY": "b" * 43}).digest
    assert first.digest != load(AuditSettings, {"WARDMESH_AUDIT_SILENT_SECONDS": "60"}).digest
    assert first.digest != load(AuditSettings, {"WARDMESH_AUDIT_LOGS": "2"}).digest


async def test_loss_and_return_of_the_transport_are_recorded(server: Postgres) -> None:
    with nats() as broker:
        async with world(broker, server) as w, w.writing(), recorder_on(w) as recorder:
            await recorder.outcome(make_call(1), make_outcome("p1"))
            broker.kill()
            for number in range(2, 8):  # each waits a quarter of a second
                with pytest.raises(AuditUnavailable):
                    await recorder.outcome(make_call(number), make_outcome("p1"))
            await asyncio.to_thread(broker.start)

            async def told() -> bool:
                return "transport_returned" in await reasons(w)

            await until(told)
            assert (await reasons(w))[0] == "start"
