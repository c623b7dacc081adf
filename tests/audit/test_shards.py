"""Several logs by configuration: one subject, stream, tree and checkpoint each; one patient lies in one log."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from audit_world import SEED, SMALL, World, cancel, make_call, make_outcome, recorder_on, until, world
from engines import Nats, Postgres
from wardmesh_audit.app import connector
from wardmesh_audit.connect import nats_as
from wardmesh_audit.findings import VERIFIED
from wardmesh_audit.guard import read_outside
from wardmesh_audit.jetstream import last_sequence
from wardmesh_audit.note import Signer
from wardmesh_audit.outbox import Outbox
from wardmesh_audit.publisher import Publisher
from wardmesh_audit.puller import Puller
from wardmesh_audit.settings import AuditSettings
from wardmesh_audit.streams import AUDIT_IN, StreamSettings, WrongStream, assert_streams, audit_stream, consumer_of
from wardmesh_audit.streams import provision as provision_streams
from wardmesh_audit.verify import Verification
from wardmesh_audit.writer import Writer
from wardmesh_common.settings import BadSettings, load

pytestmark = pytest.mark.anyio

LOGS = 3
SHARDED = StreamSettings(in_max_bytes=SMALL.in_max_bytes, logs=LOGS)


@contextlib.asynccontextmanager
async def running(w: World):
    """Writer and publisher of every log."""
    pullers = [Puller(w.nc, AUDIT_IN, consumer_of(log)) for log in range(LOGS)]
    roles: list[Writer | Publisher] = []
    for log, puller in enumerate(pullers):
        connect = connector(w.url("audit_writer"))
        roles.append(Writer(puller, connect, lambda log=log: read_outside(w.nc, [], log), w.status, log_id=log))
        signer = signer_of(log)
        outside = lambda log=log, signer=signer: read_outside(w.nc, [signer.verifier], log)  # noqa: E731
        outbox, connect = Outbox(w.nc, log_id=log), connector(w.url("audit_signer"))
        roles.append(Publisher(outbox, connect, outside, signer, w.status, log_id=log, checkpoint_seconds=0.05))
    tasks = [asyncio.create_task(role.run()) for role in roles]
    try:
        yield
    finally:
        await cancel(*tasks)
        for puller in pullers:
            puller.stop()


def signer_of(log: int) -> Signer:
    return Signer(f"test/audit/{log}", SEED)


@pytest.mark.requirement("AU-112")
async def test_three_logs_share_the_work_and_each_verifies_alone(broker: Nats, server: Postgres) -> None:
    async with world(broker, server, SHARDED) as w, running(w):
        async with recorder_on(w, logs=LOGS) as recorder:
            for number in range(60):
                await recorder.outcome(make_call(number), make_outcome(f"p{number % 12}", f"p{(number + 1) % 12}"))

        async def signed() -> bool:
            rows = await w.query(
                "select t.log_id from tree_state t join checkpoint c on c.log_id = t.log_id and c.size = t.size"
                " where (select sum(size) from tree_state) >= $1",
                120 + 2 * LOGS,
            )
            return len(rows) == LOGS

        await until(signed)
        spread = await w.query("select patient_ref, count(distinct log_id) as logs from event"
                               " where patient_ref is not null group by 1")  # fmt: skip
        assert len(spread) == 12 and {row["logs"] for row in spread} == {1}, "one patient, one log"
        used = await w.query("select log_id, count(*) as n, max(producer_seq) as last from event group by 1 order by 1")
        assert [row["log_id"] for row in used] == [0, 1, 2]
        assert all(row["last"] == row["n"] - 1 for row in used), "the counter is dense in every log"
        conn = await w.connect("audit_reader")
        try:
            for log in range(LOGS):
                report = await Verification(conn, [signer_of(log).verifier], log_id=log).run()
                assert report.exit_code == VERIFIED, report.as_text()
                assert await last_sequence(w.nc, audit_stream(log)) == used[log]["n"]
        finally:
            await conn.close()
        (last,) = await w.query("select leaf from event where log_id = 1 and seq = 0")
        assert json.loads(last["leaf"])["data"]["outcome"]["reason"] == "start"


async def test_the_step_from_one_log_to_three_narrows_the_first_consumer(broker: Nats, server: Postgres) -> None:
    async with world(broker, server) as w, nats_as("operations", broker.url, "") as operations:
        with pytest.raises(WrongStream, match="AUDIT_1"):
            await assert_streams(w.nc, SHARDED)
        try:
            made = await provision_streams(operations, SHARDED)
            assert made == ["AUDIT_1", "AUDIT_2", *(consumer_of(log) for log in range(LOGS))]
            assert await provision_streams(operations, SHARDED) == []
        finally:
            for log in (1, 2):
                await w.nc.request(f"$JS.API.STREAM.DELETE.{audit_stream(log)}", b"", timeout=20)


def test_more_logs_than_the_permissions_name_are_refused() -> None:
    for number in ("0", "5"):
        with pytest.raises(BadSettings, match="WARDMESH_AUDIT_LOGS"):
            _ = load(AuditSettings, {"WARDMESH_AUDIT_LOGS": number}).logs
