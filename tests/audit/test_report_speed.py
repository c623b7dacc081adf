"""A patient's report costs what its lines cost, however large the ledger is: it goes through indexes and few tiles."""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from audit_cost_large import fill_by_sql
from audit_world import World, world
from engines import Nats, Postgres
from wardmesh_audit.proof import Proof, check_proof
from wardmesh_audit.query_args import ReportArgs
from wardmesh_audit.report_access import BY_ACTOR, BY_PATIENT, Report, access_report

pytestmark = pytest.mark.anyio

LINES = 25
SMALL_LEDGER, LARGE_LEDGER = 4_000, 40_000
ROUNDS = 15


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def ledgers(broker: Nats, server: Postgres) -> AsyncGenerator[tuple[World, World]]:
    async with world(broker, server) as small, world(broker, server) as large:
        await fill_by_sql(small, SMALL_LEDGER, SMALL_LEDGER // LINES)
        await fill_by_sql(large, LARGE_LEDGER, LARGE_LEDGER // LINES)
        yield small, large


def patient(number: int) -> bytes:
    return bytes.fromhex(f"{number:032x}")


async def reported(conn: Any, number: int) -> Report:
    return await access_report(conn, ReportArgs(patient="x", limit=200), "default", patient(number))


async def test_every_line_of_a_report_is_there_and_proven(ledgers: tuple[World, World]) -> None:
    for w, size in zip(ledgers, (SMALL_LEDGER, LARGE_LEDGER), strict=True):
        assert (await w.verify()).exit_code == 0, "the ledger of this test is a sound one"
        conn = await w.connect("audit_report")
        try:
            report = await reported(conn, 7)
        finally:
            await conn.close()
        assert len(report.lines) == LINES
        for line in report.lines:
            hashes = tuple(b64decode(part) for part in line.proof or ())
            index = int(line.cursor.split(":")[1])
            proof = Proof(index=index, leaf=line.leaf.encode(), hashes=hashes, note=report.checkpoints[0])
            assert check_proof(proof, [w.signer.verifier]).size == size


async def test_reports_find_their_rows_by_index_in_every_month_that_has_any(ledgers: tuple[World, World]) -> None:
    w = ledgers[1]
    filled = {
        row["name"] for row in await w.query("select tableoid::regclass::text as name, count(*) from event group by 1")
    }
    conn = await w.connect("audit_report")
    try:
        for query, subject, types in (
            (BY_PATIENT, patient(7), ["access"]),
            (BY_ACTOR, "issuer|user3", None),
        ):
            first, last = datetime(1970, 1, 1, tzinfo=UTC), datetime(9998, 1, 1, tzinfo=UTC)
            values = (subject, "default", first, last, types, first, -1, -1, 201)
            text = await conn.fetchval(f"explain (format json) {query}", *values)
            scans = {
                (node["Node Type"], node.get("Relation Name", "")) for node in nodes(json.loads(text or "")[0]["Plan"])
            }
            assert not [relation for kind, relation in scans if kind == "Seq Scan" and relation in filled]
            assert {relation for kind, relation in scans if "Index" in kind or "Bitmap" in kind} >= filled
    finally:
        await conn.close()


async def test_ten_times_the_ledger_does_not_make_a_report_slower(
    ledgers: tuple[World, World], record_property: Any
) -> None:
    conns = [await w.connect("audit_report") for w in ledgers]
    took: list[list[float]] = [[], []]
    try:
        for number in range(ROUNDS + 6):  # a server plans the first five of a session anew
            for conn, times in zip(conns, took, strict=True):
                begun = time.process_time()
                assert len((await reported(conn, number)).lines) == LINES
                times.append(time.process_time() - begun)
    finally:
        for conn in conns:
            await conn.close()
    small, large = (min(times[6:]) * 1e3 for times in took)
    record_property("report_milliseconds", round(large, 2))
    print(f"report of {LINES} lines: {small:.1f} ms of CPU of {SMALL_LEDGER} events, {large:.1f} of {LARGE_LEDGER}")
    assert large < 4 * small, "the report reads more than its own lines"


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)
