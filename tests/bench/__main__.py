"""`make bench`: CPU of the mesh per call as a ratio to a bare proxy in the same run, then the cost of the ledger."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import audit_bench
import store_bench
from cpu import Account, Spent
from load import Round, request, run
from processes import mesh, process

HERE = Path(__file__).parent
SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
LEVELS = (1, 16, 64)
# Bare proxy and mesh take turns, so that a machine that gets slower or faster in between does so for both.
TURNS = 3
SETTLE_SECONDS = 0.5  # records that are still on their way to the ledger belong to their round
# Above this share of the machine other processes disturb caches and clocks: the figures are not to be trusted.
BUSY = 0.10
# architecture.md §7: CPU of all mesh processes together, as a multiple of the bare proxy's.
# A search about one person is one event of the ledger, a search about twenty people is twenty (audit.md §4.3).
BUDGETS = {"REST read": 4.0, "MCP read": 6.0, "search, one patient": 6.0, "search, 20 entries": 6.0}
PLATFORM_PORT, BARE_PORT = 19080, 19081


@dataclass
class Side:
    """One of the two: where it listens, what is sent to it, which processes it consists of."""

    port: int
    wire: bytes
    groups: dict[str, list[int]]


@dataclass
class Sum:
    """Several rounds against one side."""

    rounds: list[Round] = field(default_factory=list)
    spent: dict[str, Spent] = field(default_factory=dict)
    ratios: list[float] = field(default_factory=list)

    def add(self, result: Round, spent: dict[str, Spent]) -> float:
        """CPU seconds per good answer of this round."""
        self.rounds.append(result)
        for name, (user, system) in spent.items():
            before = self.spent.get(name, (0.0, 0.0))
            self.spent[name] = (before[0] + user, before[1] + system)
        return sum(user + system for user, system in spent.values()) / max(1, len(result.latencies))

    @property
    def good(self) -> int:
        return max(1, sum(len(each.latencies) for each in self.rounds))

    @property
    def failures(self) -> int:
        """Calls that failed; a round without a single answer is a failure as well."""
        return sum(each.failures or not each.latencies for each in self.rounds)

    @property
    def cpu(self) -> float:
        return sum(user + system for user, system in self.spent.values()) / self.good

    def quantile(self, share: float) -> float:
        return Round([latency for each in self.rounds for latency in each.latencies]).quantile(share)


def mcp_wire(host: str, token: str) -> bytes:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1.0.0"},
    }
    arguments = {"platform_id": "bench", "resource_type": "Patient", "resource_id": "p1"}
    params = {"name": "read", "arguments": arguments, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    headers = {
        "Host": host,
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "read",
    }
    return request("POST", "/mcp", headers, body)


def works(address: str, token: str) -> dict[str, tuple[bytes, bytes]]:
    """What is asked of the mesh, and the same of the bare proxy."""
    bearer = {"Host": address, "Authorization": f"Bearer {token}"}
    plain = {"Host": f"127.0.0.1:{BARE_PORT}"}
    people, person = "Patient?name=Example&_count=20", "Observation?patient=p1&_count=20"
    read = request("GET", "/fhir/Patient/p1", plain)
    return {
        "REST read": (request("GET", "/api/fhir/bench/Patient/p1", bearer), read),
        "MCP read": (mcp_wire(address, token), read),
        **{
            name: (request("GET", f"/api/fhir/bench/{asked}", bearer), request("GET", f"/fhir/{asked}", plain))
            for name, asked in (("search, one patient", person), ("search, 20 entries", people))
        },
    }


def one_round(side: Side, level: int, seconds: float, total: Sum) -> float:
    account = Account(side.groups)
    result = asyncio.run(run("127.0.0.1", side.port, side.wire, level, seconds))
    time.sleep(SETTLE_SECONDS)
    if result.first_failure:
        print("   first failure:", result.first_failure.decode("utf-8", "replace"))
    return total.add(result, account.spent())


def compare(bare: Side, whole: Side, level: int, everything: dict[str, list[int]]) -> tuple[Sum, Sum, float]:
    """Bare proxy and mesh in turns; the sums of both, and the share of the machine that others took meanwhile."""
    of_bare, of_mesh = Sum(), Sum()
    account = Account(everything)
    for _ in range(TURNS):
        base = one_round(bare, level, SECONDS / TURNS, of_bare)
        cost = one_round(whole, level, SECONDS / TURNS, of_mesh)
        of_mesh.ratios.append(cost / base if base else float("nan"))
    return of_bare, of_mesh, account.others()


def show(name: str, level: int, bare: Sum, whole: Sum, others: float) -> float:
    """One row of the table; returns the ratio."""
    ratio = whole.cpu / bare.cpu if bare.cpu else float("nan")
    spread = f"{min(whole.ratios):.1f}-{max(whole.ratios):.1f}"
    print(
        f"{name:20} {level:>4}  {ratio:>6.2f} {spread:>10} {whole.cpu * 1e6:>8.0f} {bare.cpu * 1e6:>8.0f}   "
        f"{whole.quantile(0.5) * 1e3:>7.2f} {whole.quantile(0.99) * 1e3:>7.2f}   "
        f"{bare.quantile(0.5) * 1e3:>8.2f} {bare.quantile(0.99) * 1e3:>7.2f}   {whole.failures + bare.failures}"
    )
    shares = (f"{part} {u / whole.good * 1e6:.0f}+{s / whole.good * 1e6:.0f}" for part, (u, s) in whole.spent.items())
    print("   per station µs, user+system: " + ", ".join(shares))
    if others > BUSY:
        print(f"   WARNING: other processes took {others:.0%} of the machine; these figures are not to be trusted.")
    return ratio


def measure(ready: dict[str, Any], bare_pid: int, platform_pid: int) -> tuple[dict[str, float], int]:
    """The whole table: ratios at the highest level, and the number of failed calls."""
    address = str(ready["gateway"]).split("//")[1].rstrip("/")
    processes: dict[str, list[int]] = ready["processes"]
    counted = {name: pids for name, pids in processes.items() if not name.startswith(("idp", "fhir-store"))}
    everything = {**processes, "bare": [bare_pid], "platform": [platform_pid]}
    ratios: dict[str, float] = {}
    failures = 0
    for name, (wire, bare_wire) in works(address, ready["people"]["demo_doctor"]["token"]).items():
        whole = Side(int(address.rsplit(":", 1)[1]), wire, counted)
        bare = Side(BARE_PORT, bare_wire, {"bare": [bare_pid]})
        one_round(whole, 4, min(SECONDS, 2.0), Sum())  # warm up
        for level in LEVELS:
            of_bare, of_mesh, others = compare(bare, whole, level, everything)
            ratios[name] = show(name, level, of_bare, of_mesh, others)
            failures += of_bare.failures + of_mesh.failures
    return ratios, failures


def main() -> int:
    """`--store` measures the embedded store alone, `--million` with as many resources; `--audit` the ledger alone,
    `--audit-large` reading one of ten million events.

    0 unless calls failed or AU-807 is missed: any other budget is said, and is a matter of the machine as well.
    """
    store_bench.show_validation()
    if {"--store", "--million"} & {*sys.argv[1:]}:
        store_bench.grow(million="--million" in sys.argv[1:])
        return 0
    if "--audit-large" in sys.argv[1:]:
        return audit_bench.main(large=True)
    if "--audit" in sys.argv[1:]:
        return audit_bench.main()
    with (
        process(str(HERE / "upstream.py"), str(PLATFORM_PORT)) as platform,
        process(str(HERE / "bare_proxy.py"), str(BARE_PORT), f"http://127.0.0.1:{PLATFORM_PORT}") as bare,
        mesh(f"http://127.0.0.1:{PLATFORM_PORT}") as ready,
    ):
        print(
            f"\n{'work':20} {'conc':>4}  {'ratio':>6} {'spread':>10} {'mesh µs':>8} {'bare µs':>8}   "
            f"{'p50 ms':>7} {'p99 ms':>7}   {'bare p50':>8} {'p99':>7}   failed"
        )
        ratios, failures = measure(ready, bare.pid, platform.pid)
    print(
        "\nRatios are CPU per call of all mesh processes (Cerbos, nats-server and PostgreSQL included) over the bare "
        f"proxy's,\nmeasured in {TURNS} turns each; the spread is that of the turns. Times depend on this machine.\n"
    )
    for name, ratio in ratios.items():
        verdict = "ok" if ratio <= BUDGETS[name] else "OVER"
        print(f"budget: {name:20} {ratio:6.2f} of {BUDGETS[name]:g} at {max(LEVELS)} concurrent: {verdict}")
    return max(audit_bench.main(), 1 if failures else 0)


if __name__ == "__main__":
    sys.exit(main())
