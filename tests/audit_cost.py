"""What the ledger costs, each as a ratio to something simpler on the same engines in the same round."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from msgspec import Struct

from audit_world import World, until
from wardmesh_audit.envelope import Row, rows_of
from wardmesh_audit.ledger import Connection, Ledger
from wardmesh_audit.projection import COLUMNS
from wardmesh_common.leaf import Draft
from wardmesh_common.stamp import Stamp

BATCH = 500
_RAW = "create table if not exists raw_sink (seq bigint, leaf_hash bytea, leaf bytea)"
_AHEAD = itertools.count(10**12)  # indices of rows that are compared with and are no part of the log


class Latency(Struct, frozen=True, kw_only=True):
    """Seconds; `cpu` is this process's per record."""

    p50: float
    p99: float
    rate: float
    cpu: float


class Ingest(Struct, frozen=True, kw_only=True):
    """Events per second into the ledger, and of a bare COPY right before and after."""

    rate: float
    raw: float

    @property
    def ratio(self) -> float:
        return self.rate / self.raw


def on_cpu(pid: int) -> float:
    """Seconds this process has run."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def leaves(count: int, patients: int = 0) -> list[bytes]:
    """Events of about one kilobyte, as a station makes them; of so many patients when there are any."""
    stamp = Stamp("fhir-proxy", "bench-0001")
    fill = "x" * 560
    made: list[bytes] = []
    for n in range(count):
        data = {
            "action": "R",
            "actor": {"id": f"issuer|user{n % 97}", "type": "practitioner", "role": "Doctor"},
            "facts": {"fill": fill},
            "outcome": {"code": "success", "http": 200, "reason": ""},
            "phase": "outcome",
            "purpose_of_use": "TREAT",
            "request": {"id": f"call-{n}", "method": "GET", "route": "fhir_read"},
            "resource": {"type": "Patient", "count": 1, "platform": "store"},
        }
        leaf = stamp.leaf(Draft(event_class="access", data=data, tenant="default"), {})[0]
        if patients:
            whom = b'{"pseudonym":"%s"}' % f"{n % patients:032x}".encode()
            leaf = leaf.replace(b'"patient":null', b'"patient":' + whom, 1)
        made.append(leaf)
    return made


def rows(lines: Sequence[bytes], stream_seq: int = 1) -> list[Row]:
    return rows_of("AUDIT_IN", stream_seq, datetime.now(UTC), b"\n".join(lines))


async def writer_cpu(w: World, rounds: int = 4, batches: int = 8) -> float:
    """CPU of client and server for a transaction of the writer, as a multiple of COPY into the same table."""
    conn = await w.connect("audit_writer")
    pid = conn.get_server_pid()
    try:
        ledger = Ledger(conn, "AUDIT_IN")
        costs = {"copy": 0.0, "ledger": 0.0}
        made = iter(rows(leaves(BATCH * batches * (2 * rounds + 1))))

        async def spend(name: str, work: Callable[[list[Row]], Awaitable[Any]]) -> None:
            parts = [[next(made) for _ in range(BATCH)] for _ in range(batches)]
            before = on_cpu(pid) + time.process_time()
            for part in parts:
                await work(part)
            costs[name] = costs.get(name, 0.0) + on_cpu(pid) + time.process_time() - before

        await spend("warm", ledger.append)
        for _ in range(rounds):
            await spend("copy", lambda part: _copy(conn, part))
            await spend("ledger", ledger.append)
        return costs["ledger"] / costs["copy"]
    finally:
        await conn.close()


async def _copy(conn: Connection, part: list[Row]) -> None:
    async with conn.transaction():
        records = [(0, next(_AHEAD), *row.projected, row.stream_seq, row.leaf, row.leaf_hash) for row in part]
        await conn.copy_records_to_table("event", records=records, columns=COLUMNS)


async def raw_rate(w: World, count: int) -> float:
    """Events per second of COPY with three columns, no index, 500 in a transaction: the limit of this database."""
    conn = await w.connect()
    try:
        await conn.execute(_RAW)
        lines = leaves(count)
        parts = [
            [(n, b"h" * 32, leaf) for n, leaf in enumerate(lines[at : at + BATCH])] for at in range(0, count, BATCH)
        ]
        begun = time.perf_counter()
        for part in parts:
            await conn.copy_records_to_table("raw_sink", records=part)
        taken = time.perf_counter() - begun
        await conn.execute("truncate raw_sink")
        return count / taken
    finally:
        await conn.close()


async def fill_stream(w: World, lines: Sequence[bytes], per_message: int) -> None:
    """As messages of so many events; several on their way at once."""
    bodies = [b"\n".join(lines[at : at + per_message]) for at in range(0, len(lines), per_message)]
    room = asyncio.Semaphore(64 if per_message == 1 else 4)

    async def send(body: bytes) -> None:
        async with room:
            answer = await w.nc.request("audit.in.0", body, timeout=60)
            assert b'"error"' not in answer.data

    await asyncio.gather(*map(send, bodies))


async def ingest(w: World, count: int, per_message: int, writers: int = 0) -> Ingest:
    """The stream is full, the writers are ready; from then until the ledger holds everything.

    `writers` 0 means one in this process, else so many processes. They start together: the row that orders them is
    locked until each of them waits for it.
    """
    before = await w.size()
    raw = [await raw_rate(w, count)]
    await fill_stream(w, leaves(count), per_message)
    gate = await w.connect()
    try:
        async with AsyncExitStack() as stack:
            held = gate.transaction()
            await held.start()
            await gate.execute("select 1 from tree_state where log_id = 0 for update")
            await stack.enter_async_context(writer_processes(w, writers) if writers else w.writing())
            await until(lambda: _waiting(w, writers or 1), 60)
            await held.rollback()
            begun = time.perf_counter()

            async def written() -> bool:
                size: int = await gate.fetchval("select size from tree_state where log_id = 0") or 0
                return size >= before + count

            await until(written, 120)
            taken = time.perf_counter() - begun
    finally:
        await gate.close()
    raw.append(await raw_rate(w, count))
    return Ingest(rate=count / taken, raw=median(raw))


async def _waiting(w: World, writers: int) -> bool:
    rows = await w.query(
        "select count(*) as n from pg_stat_activity where wait_event_type = 'Lock' and query like '%for update%'"
        " and datname = current_database()"
    )
    return rows[0]["n"] >= writers


@asynccontextmanager
async def writer_processes(w: World, count: int) -> AsyncGenerator[None]:
    """Writers as processes of their own, which is what replicas are."""
    program = str(Path(__file__).with_name("audit_writer_process.py"))
    command = [sys.executable, program, w.nats.url, w.url("audit_writer"), "never", str(BATCH)]
    async with AsyncExitStack() as stack:
        for _ in range(count):
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
            stack.push_async_callback(process.wait)
            stack.callback(process.kill)
        yield
