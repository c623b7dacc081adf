"""The control socket: status, stop, start, restart, kill, freeze and thaw, for `wardmesh` itself and for tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from wardmesh_cli.child import Child
from wardmesh_cli.faults import NotRunningFault, ProcessFault
from wardmesh_cli.supervisor import Supervisor

ANSWER_SECONDS = 300.0
Answer = dict[str, Any]


class Control:
    """Carries out one command at a time per connection; every answer is one JSON line."""

    def __init__(self, supervisor: Supervisor, balancer_admin_port: int) -> None:
        self._supervisor = supervisor
        self._balancer = balancer_admin_port
        self._server: asyncio.Server | None = None
        self._turns = asyncio.Lock()
        self._commands: dict[str, Callable[[list[Child]], Awaitable[None]]] = {
            "stop": self._stop,
            "start": self._start,
            "restart": self._restart,
            "kill": self._signal(signal.SIGKILL, ""),
            "freeze": self._signal(signal.SIGSTOP, "frozen"),
            "thaw": self._signal(signal.SIGCONT, "ready"),
        }

    async def listen(self, path: Path) -> None:
        """The socket is ours alone before it listens: whoever can write to it can stop the mesh."""
        listener = _bound(path)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener)

    def close(self, path: Path) -> None:
        if self._server is not None:
            self._server.close()
        path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError):
            question = json.loads(await reader.readline() or b"{}")
            answer = await self._answer(str(question.get("command")), str(question.get("name", "")))
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _answer(self, command: str, name: str) -> Answer:
        if command == "status":
            return {"ok": True, "processes": [row(child) for child in self._supervisor.children.values()]}
        action = self._commands.get(command)
        chosen = self._supervisor.group(name)
        if action is None or not chosen:
            return {"ok": False, "fault": f"unknown command {command}" if action is None else f"no process {name}"}
        try:
            async with self._turns:
                await action(chosen)
        except ProcessFault as fault:
            return {"ok": False, "fault": str(fault), "log": fault.log}
        return {"ok": True, "processes": [row(child) for child in self._supervisor.group(name)]}

    async def _stop(self, chosen: list[Child]) -> None:
        for child in chosen:
            await self._out(child, "out")
            await self._supervisor.stop_child(child)

    async def _start(self, chosen: list[Child]) -> None:
        for child in chosen:
            if not child.wanted:
                await self._supervisor.start_child(child)
                await self._out(child, "in")

    async def _restart(self, chosen: list[Child]) -> None:
        """One replica at a time; where a process has a twin, the twin is ready before the process is told to end."""
        for child in chosen:
            if child.unit.twin is not None and child.pid:
                await self._supervisor.succeed(child)
            else:
                await self._stop([child])
                await self._start([child])

    async def _out(self, child: Child, way: str) -> None:
        """Tell the balancer first, so that no call meets a closing replica."""
        if child.unit.group != "gateway" or not self._balancer:
            return
        url = f"http://127.0.0.1:{self._balancer}/{way}/{child.unit.admin_port}"
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):  # a balancer that is away has nobody to keep away
            timeout = aiohttp.ClientTimeout(total=10)
            async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url):
                pass

    def _signal(self, number: signal.Signals, state: str) -> Callable[[list[Child]], Awaitable[None]]:
        async def act(chosen: list[Child]) -> None:
            for child in chosen:
                child.signal(number)
                if state and child.pid:
                    child.become(state)

        return act


def _bound(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener


def row(child: Child) -> Answer:
    return {
        "name": child.unit.name,
        "group": child.unit.group,
        "state": child.state,
        "pid": child.pid,
        "ports": list(child.unit.ports),
        "admin_port": child.unit.admin_port,
        "seconds": round(time.monotonic() - child.since, 1),
        "restarts": child.total_restarts,
    }


def ask(path: Path, command: str, name: str = "", *, seconds: float = ANSWER_SECONDS) -> Answer:
    """One question to a running supervisor. Raises NotRunningFault."""
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(seconds)
            line.connect(str(path))
            line.sendall(json.dumps({"command": command, "name": name}).encode() + b"\n")
            with line.makefile("r") as answers:
                found = json.loads(answers.readline() or "{}")
    except (OSError, ValueError):
        raise NotRunningFault("no mesh runs in this state directory: start one with `wardmesh up`") from None
    return found
