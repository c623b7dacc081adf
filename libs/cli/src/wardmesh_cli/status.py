"""`wardmesh status`: processes, health, ports and the size of the ledger of a running mesh."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg

from wardmesh_cli.control import ask
from wardmesh_cli.faults import NotRunningFault
from wardmesh_cli.probes import http_status
from wardmesh_cli.progress import Terminal
from wardmesh_cli.state import State

_SECONDS = 10
_STYLES = {"ready": "green", "starting": "yellow", "restarting": "yellow", "frozen": "blue"}


def show(state: State, terminal: Terminal, *, as_json: bool) -> int:
    """0 when every process is ready, 1 when one is not. Raises NotRunningFault."""
    rows: list[dict[str, Any]] = ask(state.control_socket, "status", seconds=_SECONDS)["processes"]
    try:
        ready = json.loads(state.ready_file.read_text())
    except OSError:
        raise NotRunningFault("the mesh is still starting") from None
    asyncio.run(_look(rows))
    records = asyncio.run(ledger_size(ready["databases"]["wardmesh_audit"]))
    good = all(row["state"] == "ready" and row["health"] in {"", "ok"} for row in rows)
    if as_json:
        terminal.line(json.dumps({"processes": rows, "ledger_records": records, "mcp": ready["mcp"]}, indent=1))
        return 0 if good else 1
    terminal.title(f"{'process':<20} {'state':<11} {'health':<8} {'pid':>8} {'restarts':>8} {'for':>8}  ports")
    for row in rows:
        state_text = terminal.paint(f"{row['state']:<11}", _STYLES.get(row["state"], "red"))
        ports = " ".join(str(port) for port in row["ports"])
        terminal.line(
            f"{row['name']:<20} {state_text} {row['health']:<8} {row['pid'] or '':>8} {row['restarts']:>8} "
            f"{_span(row['seconds']):>8}  {ports}"
        )
    terminal.line()
    terminal.line(f"MCP endpoint   {ready['mcp']}")
    terminal.line(f"ledger         {records if records >= 0 else 'not reachable:'} records")
    return 0 if good else 1


async def _look(rows: list[dict[str, Any]]) -> None:
    """Ask each process with an admin port whether it is ready."""

    async def one(row: dict[str, Any]) -> None:
        row["health"] = ""
        if row["admin_port"] and row["pid"]:
            status = await http_status(row["admin_port"], "/readyz")
            row["health"] = "ok" if status == 200 else f"{status or 'silent'}"

    await asyncio.gather(*(one(row) for row in rows))


async def ledger_size(url: str) -> int:
    """Leaves in the ledger, -1 when it cannot be asked."""
    try:
        connection = await asyncpg.connect(url, timeout=_SECONDS)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM event", timeout=_SECONDS) or 0)
        finally:
            await connection.close(timeout=_SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return -1


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
