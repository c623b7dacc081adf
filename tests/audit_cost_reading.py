"""What it costs to read a large ledger: a patient's report with proofs, verification, and the room it takes."""

from __future__ import annotations

import random
import time

import asyncpg
from msgspec import Struct

from audit_cost import Latency, on_cpu
from audit_world import World
from wardmesh_audit.merkle import leaf_hash
from wardmesh_audit.projection import decoded
from wardmesh_audit.query_args import ReportArgs
from wardmesh_audit.report_access import access_report
from wardmesh_audit.verify import Verification


async def report_latency(w: World, patients: int, asked: int = 21, limit: int = 200) -> Latency:
    """The report of one patient with a proof for each line, of several patients."""
    pool = await asyncpg.create_pool(w.url("audit_report"), min_size=1, max_size=1)
    pick = random.Random(1)
    took: list[float] = []
    try:
        cpu = time.process_time()
        for _ in range(asked + 1):
            whom = bytes.fromhex(f"{pick.randrange(patients):032x}")
            async with pool.acquire() as conn:
                begun = time.perf_counter()
                report = await access_report(conn, ReportArgs(patient="x", limit=limit), "default", whom)
                took.append(time.perf_counter() - begun)
            assert report.lines
        cpu = time.process_time() - cpu
    finally:
        await pool.close()
    took = sorted(took[1:])  # the first one prepares its statements
    return Latency(p50=took[len(took) // 2], p99=took[-1], rate=len(took) / sum(took), cpu=cpu / (asked + 1))


class Storage(Struct, frozen=True, kw_only=True):
    """Bytes per event."""

    leaf: float
    table: float
    index: float


async def storage(w: World) -> Storage:
    (found,) = await w.query(
        "select count(*) as n, sum(octet_length(leaf)) as leaf,"
        " (select sum(pg_table_size(relid)) from pg_partition_tree('event') where isleaf) as data,"
        " (select sum(pg_indexes_size(relid)) from pg_partition_tree('event') where isleaf) as index from event"
    )
    count = float(found["n"])
    return Storage(
        leaf=float(found["leaf"]) / count, table=float(found["data"]) / count, index=float(found["index"]) / count
    )


class Reading(Struct, frozen=True, kw_only=True):
    """Seconds of CPU per event: of the reader, of its server, and of what no reader can do without.

    That is hashing a leaf and decoding it, both alone, right before and after.
    """

    client: float
    server: float
    least: float


async def verification(w: World) -> Reading:
    """The whole log from its leaves, as `verify` does it."""
    conn = await w.connect("audit_reader")
    try:
        pid = conn.get_server_pid()
        leaf: bytes = await conn.fetchval("select leaf from event where log_id = 0 and seq = 0") or b""
        least = _least(leaf)
        cpu, server = time.process_time(), on_cpu(pid)
        report = await Verification(conn, [w.signer.verifier]).run()
        cpu, server = time.process_time() - cpu, on_cpu(pid) - server
        assert report.exit_code == 0, report.as_text()
        least = min(least, _least(leaf))
        return Reading(client=cpu / report.rows, server=server / report.rows, least=least)
    finally:
        await conn.close()


def _least(leaf: bytes, count: int = 20_000) -> float:
    cpu = time.process_time()
    for _ in range(count):
        leaf_hash(leaf)
        decoded(leaf)
    return (time.process_time() - cpu) / count
