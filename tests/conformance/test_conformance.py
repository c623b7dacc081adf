"""The official MCP conformance suites, both wire eras, on one replica and on two behind a per-request round robin."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.replicas import listeners
from conformance.suites import CURRENT, EARLIER, run_suite

# A total that drops while everything is green means that a check was skipped: totals are compared as well.
# `--suite all` gives 234 with sessions in the SDK; without them server-session-lifecycle has 1 check instead of 3
# and server-sse-polling none instead of 3: 229.
RUNS = [
    pytest.param(CURRENT, ("--requirements", "2025-11-25"), 79, id="2025-11-25"),
    pytest.param(CURRENT, ("--requirements", "2026-07-28"), 196, id="2026-07-28"),
    pytest.param(CURRENT, ("--suite", "all"), 229, id="all"),
    pytest.param(CURRENT, ("--suite", "all", "--spec-version", "2025-06-18"), 54, id="2025-06-18"),
    pytest.param(EARLIER, ("--suite", "all"), 44, id="suite-0.1.16"),
]
SECONDS = 150.0


@pytest.mark.anyio
@pytest.mark.timeout(400)
@pytest.mark.requirement("C-8", "GW-1", "GW-2", "OA-8", "B-8")
@pytest.mark.parametrize(("program", "options", "expected"), RUNS)
async def test_one_replica_passes_every_check_of_the_suite(
    program: Path, options: tuple[str, ...], expected: int, tmp_path: Path
) -> None:
    async with listeners(1, tmp_path) as pack:
        verdict = await run_suite(program, pack.url, options, tmp_path, SECONDS)
    assert (verdict.passed, verdict.failed) == (expected, 0), verdict.output[-6000:]


@pytest.mark.anyio
@pytest.mark.timeout(400)
@pytest.mark.requirement("X-25")
@pytest.mark.parametrize(("program", "options", "expected"), RUNS)
async def test_two_replicas_without_affinity_pass_the_same_checks(
    program: Path, options: tuple[str, ...], expected: int, tmp_path: Path
) -> None:
    async with listeners(2, tmp_path) as pack:
        verdict = await run_suite(program, pack.url, options, tmp_path, SECONDS)
        assert pack.proxy is not None
        assert min(pack.proxy.served.values()) > 10, "both replicas must have worked"
    assert (verdict.passed, verdict.failed) == (expected, 0), verdict.output[-6000:]
    if "server-stateless" in verdict.scenarios:
        assert verdict.scenarios["server-stateless"] == 30, "change events do not cross replicas"
