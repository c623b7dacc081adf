"""Starts processes in order, restarts those that die, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wardmesh_cli.child import Child, Unit
from wardmesh_cli.faults import PortTakenFault, ProcessFault
from wardmesh_cli.ports import is_free

POLL_SECONDS = 0.03
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True)
class Budget:
    """How often one process may be restarted within a time before the whole mesh stops with the reason."""

    restarts: int = 8
    within_seconds: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """A program that runs once and must succeed: a migration, provisioning, a seed."""

    name: str
    command: list[str]
    environ: dict[str, str] = field(default_factory=dict[str, str])
    seconds: float = 180.0


class Supervisor:
    """Owner of all children. `failed` is set when one of them used up its budget."""

    def __init__(self, logs: Path, budget: Budget, changed: Callable[[], None], note: Callable[[str], None]) -> None:
        self.children: dict[str, Child] = {}
        self.failed: asyncio.Future[ProcessFault] = asyncio.get_running_loop().create_future()
        self._logs = logs
        self._budget = budget
        self._changed = changed
        self._note = note
        self._watchers: dict[Child, asyncio.Task[None]] = {}
        self._stopping = False

    def group(self, name: str) -> list[Child]:
        """The process of this name, or all replicas of this group."""
        if name in self.children:
            return [self.children[name]]
        return [child for child in self.children.values() if child.unit.group == name]

    def pids(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for child in self.children.values():
            if child.pid:
                found.setdefault(child.unit.group, []).append(child.pid)
        return found

    async def start(self, *units: Unit) -> None:
        """Start these together and wait until all are ready. Raises ProcessFault or PortTakenFault."""
        for unit in units:
            for port in unit.ports:
                if port not in unit.listeners and not is_free(port):
                    raise PortTakenFault(f"port {port} for {unit.name} is taken by another program")
        await self.together([self._first_start(unit) for unit in units])

    async def together(self, work: Sequence[Coroutine[Any, Any, object]]) -> None:
        """All at once; the first fault ends the others."""
        tasks = [asyncio.create_task(each) for each in work]
        try:
            for task in asyncio.as_completed(tasks):
                await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _first_start(self, unit: Unit) -> None:
        child = self.children[unit.name] = Child(unit, self._logs)
        await self.start_child(child)

    async def start_child(self, child: Child) -> None:
        """Start, wait for readiness, then watch."""
        child.wanted = True
        await self._until_ready(child)
        self._watchers[child] = asyncio.create_task(self._watch(child))
        self._changed()

    async def _until_ready(self, child: Child) -> None:
        process = await child.spawn()
        limit = time.monotonic() + child.unit.ready_seconds
        while not await child.unit.ready(process.pid):
            if process.returncode is not None:
                await child.drained()
                child.become("failed")
                raise ProcessFault(
                    f"{child.unit.name} ended with code {process.returncode} before it was ready",
                    list(child.log.tail)[-12:],
                )
            if time.monotonic() > limit:
                child.kill()
                await process.wait()
                await child.drained()
                child.become("failed")
                seconds = child.unit.ready_seconds
                raise ProcessFault(
                    f"{child.unit.name} was not ready within {seconds:.0f} s", list(child.log.tail)[-12:]
                )
            await asyncio.sleep(POLL_SECONDS)
        child.become("ready")

    async def _watch(self, child: Child) -> None:
        """Restart with growing pauses until the budget is used up."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            assert child.process is not None
            code = await child.process.wait()
            if not child.wanted:
                return
            await child.drained()
            child.kill()  # what it may have started itself
            ran = time.monotonic() - child.since
            pause = FIRST_PAUSE_SECONDS if ran > self._budget.within_seconds else pause
            while True:
                child.become("restarting")
                self._changed()
                self._spend(child, code)
                if self.failed.done():
                    return
                self._note(f"{child.unit.name} ended with code {code}: restart in {pause:.1f} s")
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                if not child.wanted:
                    return
                try:
                    await self._until_ready(child)
                except ProcessFault as fault:
                    self._note(str(fault))
                    code = child.process.returncode or 0
                    continue
                break
            self._changed()
            self._note(f"{child.unit.name} runs again as process {child.pid}")

    def _spend(self, child: Child, code: int) -> None:
        now = time.monotonic()
        child.total_restarts += 1
        child.restarts.append(now)
        while child.restarts[0] < now - self._budget.within_seconds:
            child.restarts.popleft()
        if len(child.restarts) > self._budget.restarts and not self.failed.done():
            text = (
                f"{child.unit.name} ended {len(child.restarts)} times within {self._budget.within_seconds:.0f} s "
                f"(last code {code})"
            )
            self.failed.set_result(ProcessFault(text, list(child.log.tail)[-12:]))

    async def run(self, task: Task) -> str:
        """Run to the end and return its last line. Raises ProcessFault."""

        async def never(_pid: int) -> bool:
            return False

        unit = Unit(name=task.name, group=task.name, command=task.command, environ=task.environ, ready=never)
        child = Child(unit, self._logs)
        self.children[task.name] = child
        process = await child.spawn()
        try:
            await asyncio.wait_for(process.wait(), task.seconds)
            await child.drained()
            if process.returncode != 0:
                raise ProcessFault(f"{task.name} ended with code {process.returncode}", list(child.log.tail)[-12:])
        except TimeoutError:
            raise ProcessFault(f"{task.name} took longer than {task.seconds:.0f} s", list(child.log.tail)) from None
        finally:
            child.kill()
            await process.wait()
            child.log.close()
            del self.children[task.name]
        return child.log.tail[-1] if child.log.tail else ""

    async def succeed(self, child: Child) -> None:
        """Start the twin of a process, and end the process when the twin is ready. Raises ProcessFault: it stays."""
        name, unit = child.unit.name, child.unit
        assert unit.twin is not None, "only a process with a twin can have a successor"
        successor = Child(replace(unit.twin, twin=replace(unit, twin=None)), self._logs)
        successor.total_restarts = child.total_restarts
        # Both are in the table all the time: whatever interrupts us, `stop` finds them.
        self.children[f"{name} (new)"] = successor
        try:
            await self.start_child(successor)
        except ProcessFault:
            del self.children[f"{name} (new)"]
            successor.log.close()
            raise
        self.children[name], self.children[f"{name} (old)"] = successor, child
        del self.children[f"{name} (new)"]
        await self.stop_child(child)
        self.children.pop(f"{name} (old)", None)
        child.log.close()
        self._changed()

    async def stop_child(self, child: Child) -> None:
        """Orderly stop of one process; it stays stopped."""
        watcher = self._watchers.pop(child, None)
        child.wanted = False
        if watcher is not None and child.state in {"restarting", "starting"}:
            watcher.cancel()
        if not await child.stop():
            self._note(f"{child.unit.name} did not stop within {child.unit.stop_seconds:.0f} s and was killed")
        if watcher is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
        self._changed()

    async def stop(self) -> None:
        """Everything, in reverse order of the start, replicas of one group together."""
        self._stopping = True
        groups = list(dict.fromkeys(child.unit.group for child in reversed(self.children.values())))
        for name in groups:
            await asyncio.gather(*(self.stop_child(child) for child in self.group(name)))
        for child in self.children.values():
            child.log.close()

    def kill_all(self) -> None:
        """At once and without asking: the second Ctrl-C."""
        for child in self.children.values():
            child.wanted = False
            child.signal(signal.SIGCONT)
            child.kill()
