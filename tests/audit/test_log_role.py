"""The logger `fhir.audit` follows the ledger: trouble of a database neither ends the role nor doubles a line."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import asyncpg
import pytest

from audit_world import World, make_call, make_outcome, until, world
from engines import Nats, Postgres
from wardmesh_audit.app import connector
from wardmesh_audit.ledger import Connection
from wardmesh_audit.log_role import LogRole
from wardmesh_common.leaf import draft_events
from wardmesh_common.stamp import Stamp

pytestmark = pytest.mark.anyio


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(json.loads(record.getMessage())["details"]["id"])


class Trouble:
    """A ledger that is starting up at first, and keys that are away in the middle of a batch."""

    def __init__(self, w: World) -> None:
        self._connect = connector(w.url("audit_reader"))
        self.starting = 2
        self.opened = 0

    async def connect(self) -> Connection:
        if self.starting:
            self.starting -= 1
            raise asyncpg.CannotConnectNowError("the database system is starting up")
        return await self._connect()

    async def opens(self, _leaf: bytes) -> dict[str, Any] | None:
        self.opened += 1
        if self.opened in (4, 5):
            raise asyncpg.AdminShutdownError("terminating connection due to administrator command")
        return None


async def test_a_database_that_restarts_neither_ends_the_log_nor_tells_an_event_twice(
    broker: Nats, server: Postgres
) -> None:
    logger, lines = logging.getLogger("test.fhir.audit"), Lines()
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(lines)
    stamp = Stamp("test", "test-0001")
    async with world(broker, server) as w, w.writing():
        trouble = Trouble(w)
        role = asyncio.create_task(LogRole(trouble.connect, trouble.opens, (0,), logger).run())
        try:
            sent: list[str] = []

            async def one_more_is_told() -> bool:
                """It begins with what comes after its first look."""
                leaves = reads(4, stamp)
                sent.extend(json.loads(leaf)["id"] for leaf in leaves)
                await w.send(*leaves)
                await w.wait_size(len(sent))
                return len(lines.told) >= 8 or role.done()

            await until(one_more_is_told, 60)
            await until(lambda: _holds(lambda: sent[-1] in lines.told or role.done()), 60)
            assert not role.done() and trouble.opened > 5
            assert lines.told == sent[-len(lines.told) :]
        finally:
            role.cancel()
            await asyncio.gather(role, return_exceptions=True)


def reads(count: int, stamp: Stamp) -> list[bytes]:
    """Events of the access class, without a seal."""
    drafts = [draft_events(make_call(n), make_outcome(), (), time.time())[0] for n in range(count)]
    for draft in drafts:
        draft.patient, draft.secrets = "", {}
    return [stamp.leaf(draft, {})[0] for draft in drafts]


async def _holds(condition: Any) -> bool:
    return condition()
