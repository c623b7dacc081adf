"""A patient's report reads a few pages for each of its lines, however large the ledger: counted in pages, not in time.

How long it takes among ten million events, and what recording adds to a call, is a matter of `make bench`, which fails
above the targets of AU-807.
"""

from __future__ import annotations

import pytest

from audit_cost_large import fill_by_sql
from audit_world import world
from engines import Nats, Postgres
from wardmesh_audit.query_args import ReportArgs
from wardmesh_audit.report_access import access_report

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
EVENTS, LINES_EACH = 80_000, 100
# A line: its index entry, its row, its leaf, and the tiles of its proof, each behind an index of three or four levels.
PAGES_OF_A_LINE = 12


@pytest.mark.requirement("AU-807")
async def test_a_report_reads_a_few_pages_for_each_of_its_lines(broker: Nats, server: Postgres) -> None:
    async with world(broker, server) as w:
        await fill_by_sql(w, EVENTS, EVENTS // LINES_EACH)
        conn = await w.connect("audit_report")

        async def pages() -> int:
            await conn.execute("select pg_stat_force_next_flush()")
            found = await conn.fetchval("select sum(hits + reads) from pg_stat_get_backend_io(pg_backend_pid())")
            return int(found or 0)

        try:
            read: list[int] = []
            for patient in range(3):
                before = await pages()
                whom = patient.to_bytes(16, "big")
                report = await access_report(conn, ReportArgs(patient="x", limit=200), "default", whom)
                assert len(report.lines) == LINES_EACH
                read.append(await pages() - before)
        finally:
            await conn.close()
        print(f"pages read for a report of {LINES_EACH} lines: {read}")
        # The first ones also look up what the session does not know yet.
        assert 0 < read[-1] <= PAGES_OF_A_LINE * LINES_EACH
