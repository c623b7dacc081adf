"""A writer in a process of its own that can kill itself: `python audit_writer_process.py NATS PG POINT EVENTS`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

import uvloop

from wardmesh_audit.app import connector
from wardmesh_audit.guard import read_outside
from wardmesh_audit.puller import Puller
from wardmesh_audit.streams import AUDIT_IN, consumer_of
from wardmesh_audit.writer import Writer
from wardmesh_common.bus import Bus

KILL_AT = 3  # the transaction in which it happens


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly:
    """A connection that ends the process after the lock, after COPY or right before the commit."""

    def __init__(self, inner: Any, point: str) -> None:
        self._inner = inner
        self._point = point
        self.transactions = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def fetchrow(self, query: str, *args: Any) -> Any:
        row = await self._inner.fetchrow(query, *args)
        if query.endswith("for update"):
            self.transactions += 1
            self._maybe("lock")
        return row

    async def copy_records_to_table(self, *args: Any, **kwargs: Any) -> Any:
        done = await self._inner.copy_records_to_table(*args, **kwargs)
        self._maybe("copy")
        return done

    async def execute(self, query: str, *args: Any) -> Any:
        done = await self._inner.execute(query, *args)
        if "update tree_state" in query:
            self._maybe("commit")
        return done

    def _maybe(self, point: str) -> None:
        if point == self._point and self.transactions == KILL_AT:
            die()


class DeadlySource:
    """A source that ends the process between the commit and the acknowledgement."""

    def __init__(self, inner: Puller, point: str) -> None:
        self.take = inner.take
        self.forget = inner.forget
        self.give_back = inner.give_back
        self._inner = inner
        self._point = point
        self._count = 0

    def acknowledge(self, messages: list[Any]) -> None:
        self._count += 1
        if self._point == "ack" and self._count == KILL_AT:
            die()
        self._inner.acknowledge(messages)


async def nothing(_reason: str, _facts: dict[str, Any]) -> None:
    """This process reports nothing."""


async def main(nats_url: str, database_url: str, point: str, batch_events: int) -> None:
    bus = await Bus.connect("audit", nats_url, "")
    connect = connector(database_url)

    async def deadly() -> Any:
        return Deadly(await connect(), point)

    source = DeadlySource(Puller(bus.nc, AUDIT_IN, consumer_of(0)), point)
    writer = Writer(source, deadly, lambda: read_outside(bus.nc, []), nothing, batch_events=batch_events)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await writer.run()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the service does
        runner.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
