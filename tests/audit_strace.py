"""What strace does to the system calls of an engine while a block runs: lets them fail, or take longer."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from engines import Engine

STRACE = shutil.which("strace")
WITHOUT_STRACE = "strace is not on this machine: nothing can be injected"


def family(pid: int) -> list[int]:
    """A process and its children."""
    with contextlib.suppress(OSError):  # it ended meanwhile
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]
    return [pid]


@contextlib.asynccontextmanager
async def injecting(engine: Engine, calls: str, what: str, log: Path) -> AsyncGenerator[None]:
    """`what` as strace's inject takes it (`error=EIO:when=3`), for these calls in every process of the engine."""
    assert STRACE is not None
    pids = [option for pid in family(engine.pid) for option in ("-p", str(pid))]
    command = [STRACE, "-f", "-qq", "-o", str(log), "-e", f"trace={calls}", "-e", f"inject={calls}:{what}", *pids]
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + 60
        status = Path(f"/proc/{engine.pid}/status")
        while f"TracerPid:\t{tracer.pid}" not in status.read_text():
            assert tracer.poll() is None and time.monotonic() < limit, "strace could not attach"
            await asyncio.sleep(0.02)
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        try:
            await asyncio.to_thread(tracer.wait, 20)
        except subprocess.TimeoutExpired:
            tracer.kill()
            await asyncio.to_thread(tracer.wait, 10)
