"""A background verification whose connection is lost goes on where it was: nothing is skipped, nothing told twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from audit.test_background import background, kept_ledger, reasons
from audit_world import cancel, until
from engines import Nats, Postgres
from wardmesh_audit.app import connector
from wardmesh_audit.findings import TAMPERED
from wardmesh_audit.ledger import Connection
from wardmesh_audit.verify import Verification

pytestmark = pytest.mark.anyio


class Lossy:
    """A connection that is lost once in every piece of a log, when some of the piece has come or all of it."""

    def __init__(self, conn: Connection, begins: list[int]) -> None:
        self._conn = conn
        self._begins = begins

    def __getattr__(self, name: str) -> Any:
        return getattr(self._conn, name)

    async def copy_from_query(self, query: str, *values: Any, output: Any, **options: Any) -> str:
        low = values[1]
        self._begins.append(low)
        if self._begins.count(low) > 1:
            return await self._conn.copy_from_query(query, *values, output=output, **options)
        # Some of the rows only, as far as a lost connection lets one know.
        part = (values[0], low, low + 9 if low > 0 else values[2])
        await self._conn.copy_from_query(query, *part, output=output, **options)
        self._conn.terminate()
        raise ConnectionResetError


async def test_a_lost_connection_is_made_again_and_the_run_goes_on_where_it_was(broker: Nats, server: Postgres) -> None:
    async with kept_ledger(broker, server) as w:
        await w.tamper("update event set outcome = 'x' where seq = 20", "delete from event where seq = 250")
        connect, begins = connector(w.url("audit_detect")), list[int]()

        async def lossy() -> Any:
            return Lossy(await connect(), begins)

        watch = background(w, connect=lossy, piece=128, every_seconds=60.0)
        task = asyncio.create_task(watch.run())
        try:

            async def ended() -> list[Any]:
                return await w.query("select exit_code, size, findings::jsonb from verification_run")

            runs = await until(ended, 120.0)
        finally:
            await cancel(task)
        whole = await w.verify()
        # Every piece was begun twice, none a third time and none out of its turn.
        pieces = sorted(set(begins))
        assert begins == [low for piece in pieces for low in (piece, piece)] and len(pieces) >= 3
        assert [run["exit_code"] for run in runs] == [TAMPERED] and runs[0]["size"] <= whole.size
        found = [(finding.kind, finding.index) for finding in whole.findings]
        assert found == [("projection", 20), ("missing_index", 250)]
        alerts = await w.query("select facts->>'kind' as kind, seq from alert order by seq")
        assert [tuple(alert) for alert in alerts] == found

        async def told() -> bool:
            return "verification" in [reason for reason, _ in await reasons(w)]

        await until(told)
        events = [reason for reason, _ in await reasons(w) if reason.startswith("verification")]
        assert events.count("verification_started") == events.count("verification") == 1


async def test_a_run_that_moves_to_another_connection_leaves_the_one_before_as_it_was(
    broker: Nats, server: Postgres
) -> None:
    async with kept_ledger(broker, server) as w:
        await w.tamper("update event set outcome = 'x' where seq in (20, 100)")
        first, second = await w.connect("audit_reader"), await w.connect("audit_reader")
        try:
            whole = await Verification(first, [w.signer.verifier]).run()
            run = Verification(first, [w.signer.verifier], piece=64)
            assert not await run.slice()
            moved = run.moved_to(second)
            assert not await moved.slice() and moved.report.rows == 128 and run.report.rows == 64
            await second.close()
            while not await run.slice():
                pass
        finally:
            await first.close()
            second.terminate()
        assert run.report == whole and len(moved.report.findings) == len(whole.findings) == 2
