"""One child process: its recipe, its log file, and its life from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from wardmesh_cli.account import spawn_options

LOG_BYTES = 32 * 1024 * 1024
LINE_BYTES = 1024 * 1024
TAIL_LINES = 30

Ready = Callable[[int], Awaitable[bool]]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """How one process is started, when it is ready and how it is stopped."""

    name: str  # of this process: gateway-1
    group: str  # of all its replicas: gateway
    command: list[str]
    environ: dict[str, str] = field(default_factory=dict[str, str])
    cwd: Path | None = None
    ready: Ready
    ports: tuple[int, ...] = ()
    admin_port: int = 0
    listeners: dict[int, int] = field(default_factory=dict[int, int])  # port -> socket that we hold for it
    twin: Unit | None = None  # the same with another admin port: it may run beside this one
    engine: bool = False
    stop_signal: signal.Signals = signal.SIGTERM
    last_signal: signal.Signals = signal.SIGKILL  # from the kernel, should we die first
    ready_seconds: float = 60.0
    stop_seconds: float = 20.0


class LogFile:
    """Lines of one process as JSON, with its name; the last ones stay in memory for messages."""

    def __init__(self, path: Path, process: str) -> None:
        self._path = path
        self._process = process
        self._out = path.open("a", encoding="utf-8")
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def write(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip()
        if not line:
            return
        self.tail.append(line)
        if line.startswith("{") and line.endswith("}") and len(line) > 2:
            text = f'{{"process":{json.dumps(self._process)},{line[1:]}'
        else:
            moment = datetime.now(UTC).isoformat(timespec="milliseconds")
            text = json.dumps({"process": self._process, "time": moment, "message": line})
        self._out.write(text + "\n")
        self._out.flush()
        if self._out.tell() > LOG_BYTES:
            self._out.close()
            self._path.replace(self._path.with_suffix(".1"))
            self._out = self._path.open("a", encoding="utf-8")

    def close(self) -> None:
        self._out.close()


class Child:
    """A running process of a unit. Wanted: whether it should be running; the supervisor decides what follows."""

    def __init__(self, unit: Unit, logs: Path) -> None:
        self.unit = unit
        self.log = LogFile(logs / f"{unit.name}.log", unit.name)
        self.process: asyncio.subprocess.Process | None = None
        self.state = "stopped"
        self.wanted = False
        self.since = time.monotonic()
        self.restarts: deque[float] = deque()
        self.total_restarts = 0
        self._pump: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None and self.process.returncode is None else 0

    def become(self, state: str) -> None:
        self.state = state
        self.since = time.monotonic()

    async def spawn(self) -> asyncio.subprocess.Process:
        unit = self.unit
        options = spawn_options(unprivileged=unit.engine, last_signal=unit.last_signal)
        self.become("starting")
        self.process = await asyncio.create_subprocess_exec(
            *unit.command,
            env=unit.environ,
            cwd=unit.cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=LINE_BYTES,
            pass_fds=tuple(unit.listeners.values()),
            **options,
        )
        assert self.process.stdout is not None
        self._pump = asyncio.create_task(self._write_log(self.process.stdout))
        return self.process

    async def _write_log(self, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # a line above the limit: its rest follows as lines of their own
                continue
            if not line:
                return
            self.log.write(line)

    async def drained(self) -> None:
        """The log holds everything the ended process wrote (or a grandchild keeps the pipe: do not wait for that)."""
        if self._pump is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._pump), 1)

    def signal(self, number: signal.Signals) -> None:
        """To the process itself; its group is only for the last word."""
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the whole session: nothing that the process started survives it."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    async def stop(self) -> bool:
        """Asks, waits, then kills. False when it had to be killed."""
        self.wanted = False
        if self.process is None or self.process.returncode is not None:
            self.become("stopped")
            return True
        self.become("stopping")
        self.signal(signal.SIGCONT)
        self.signal(self.unit.stop_signal)
        orderly = True
        try:
            await asyncio.wait_for(self.process.wait(), self.unit.stop_seconds)
        except TimeoutError:
            orderly = False
        self.kill()
        await self.process.wait()
        self.become("stopped")
        return orderly
