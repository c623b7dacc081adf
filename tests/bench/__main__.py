"""`make bench`: CPU of the whole mesh per call, as a ratio to a bare proxy measured in the same run."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from load import Round, request, run

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
SECONDS = float(os.environ.get("BENCH_SECONDS", "5"))
LEVELS = (1, 16, 64)
# architecture.md §7: CPU of all mesh processes together, as a multiple of the bare proxy's.
BUDGETS = {"REST read": 4.0, "MCP read": 6.0, "search, 20 entries": 6.0}


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes so far."""
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / TICKS
    return total


def family(name: str, pids: list[int]) -> list[int]:
    """The processes of one name and what they started; the supervisor's children are counted under their own names."""
    return pids if name == "wardmesh" else tree(pids)


def tree(pids: list[int]) -> list[int]:
    """These processes and everything below them: PostgreSQL serves each connection in a child."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    queue = list(pids)
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue += parents.get(pid, [])
    return found


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen([sys.executable, *arguments], stdin=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(10)


@contextmanager
def mesh(upstream: str) -> Iterator[dict[str, object]]:
    """A whole mesh whose platform `bench` is the fixed upstream."""
    with tempfile.TemporaryDirectory(prefix="wardmesh-bench-") as directory:
        ready = Path(directory) / "ready.json"
        command = [str(Path(sys.executable).with_name("wardmesh")), "up", "--state", f"{directory}/state"]
        command += ["--platform", f"bench={upstream}/fhir", "--ready-file", str(ready)]
        command += ["--set", "gateway:WARDMESH_RATE_LIMIT=1000000000"]
        started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            limit = time.monotonic() + 300
            while not ready.exists():
                if started.poll() is not None or time.monotonic() > limit:
                    raise SystemExit("bench: the mesh did not start")
                time.sleep(0.2)
            yield json.loads(ready.read_text())
        finally:
            started.terminate()
            started.wait(60)


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


def row(name: str, level: int, result: Round, cpu: float, bare: Round, bare_cpu: float) -> str:
    ratio = cpu / bare_cpu
    budget = BUDGETS.get(name)
    verdict = "" if budget is None else f"{'ok' if ratio <= budget else 'OVER'} (≤ {budget:g})"
    return (
        f"{name:20} {level:>4}  {ratio:>7.2f} {verdict:12} {cpu * 1e6:>8.0f} {bare_cpu * 1e6:>8.0f}   "
        f"{result.quantile(0.5) * 1e3:>7.2f} {result.quantile(0.99) * 1e3:>7.2f}   "
        f"{bare.quantile(0.5) * 1e3:>7.2f} {bare.quantile(0.99) * 1e3:>7.2f}   {result.failures}"
    )


Measured = tuple[Round, float]


def measure(port: int, wire: bytes, level: int, pids: Callable[[], list[int]]) -> Measured:
    """One round; CPU seconds per good answer of the given processes."""
    before = cpu_seconds(pids())
    result = asyncio.run(run("127.0.0.1", port, wire, level, SECONDS))
    time.sleep(0.5)  # records that are still on their way to the ledger belong to this round
    spent = cpu_seconds(pids()) - before
    if result.first_failure:
        print("   first failure:", result.first_failure.decode("utf-8", "replace"))
    return result, spent / max(1, len(result.latencies))


def main() -> int:
    upstream_port, bare_port = 19080, 19081
    over = 0
    with (
        process(str(HERE / "upstream.py"), str(upstream_port)),
        process(str(HERE / "bare_proxy.py"), str(bare_port), f"http://127.0.0.1:{upstream_port}") as bare,
        mesh(f"http://127.0.0.1:{upstream_port}") as ready,
    ):
        address = str(ready["gateway"]).split("//")[1]
        port = int(address.rsplit(":", 1)[1].rstrip("/"))
        token = ready["people"]["demo_doctor"]["token"]  # type: ignore[index]
        names: dict[str, list[int]] = ready["processes"]  # type: ignore[assignment]
        counted = {name: pids for name, pids in names.items() if not name.startswith(("idp", "fhir-store"))}
        bearer = {"Host": address, "Authorization": f"Bearer {token}"}
        plain = {"Host": f"127.0.0.1:{bare_port}"}
        works = {
            "REST read": (
                request("GET", "/api/fhir/bench/Patient/p1", bearer),
                request("GET", "/fhir/Patient/p1", plain),
            ),
            "MCP read": (mcp_wire(address, token), request("GET", "/fhir/Patient/p1", plain)),
            "search, 20 entries": (
                request("GET", "/api/fhir/bench/Patient?name=Example&_count=20", bearer),
                request("GET", "/fhir/Patient?name=Example&_count=20", plain),
            ),
        }
        all_pids = lambda: [pid for name, pids in counted.items() for pid in family(name, pids)]  # noqa: E731
        print(
            f"\n{'work':20} {'conc':>4}  {'ratio':>7} {'budget':12} {'mesh µs':>8} {'bare µs':>8}   "
            f"{'p50 ms':>7} {'p99 ms':>7}   {'bare p50':>7} {'p99':>7}   failed"
        )
        for name, (wire, bare_wire) in works.items():
            measure(port, wire, 4, all_pids)  # warm up
            for level in LEVELS:
                bare_result, bare_cpu = measure(bare_port, bare_wire, level, lambda: [bare.pid])
                before = {name: cpu_seconds(family(name, pids)) for name, pids in counted.items()}
                result, cpu = measure(port, wire, level, all_pids)
                print(row(name, level, result, cpu, bare_result, bare_cpu))
                over += cpu / bare_cpu > BUDGETS[name] and level == max(LEVELS)
                share = {n: cpu_seconds(family(n, p)) - before[n] for n, p in counted.items()}
                good = max(1, len(result.latencies))
                print("   per station µs: " + ", ".join(f"{s} {v / good * 1e6:.0f}" for s, v in share.items()))
        print(
            "\nRatios are CPU per call of all mesh processes (Cerbos, nats-server and PostgreSQL included) over the "
            "bare proxy's,\nmeasured one after the other in this run. Times depend on this machine; the ratios less so."
        )
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
