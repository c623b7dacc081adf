"""The supervisor keeps its children running, stops them in order and leaves none behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from wardmesh_cli.child import Unit
from wardmesh_cli.faults import PortTakenFault, ProcessFault
from wardmesh_cli.ports import free_port, is_free
from wardmesh_cli.supervisor import Budget, Supervisor, Task

pytestmark = pytest.mark.anyio

STAYS = "import signal, sys, pathlib; signal.signal(signal.SIGTERM, lambda *_: (log('end'), sys.exit(0)))\n"
LOG = "def log(word):\n    with open(sys.argv[1], 'a') as out: out.write(sys.argv[2] + ' ' + word + '\\n')\n"
PROGRAM = f"{STAYS}{LOG}log('begin')\nsignal.pause()"
STUBBORN = f"import signal, sys\n{LOG}signal.signal(signal.SIGTERM, signal.SIG_IGN)\nlog('begin')\nsignal.pause()"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        await asyncio.sleep(0.02)


class Stage:
    """A supervisor over small programs that write down when they begin and end."""

    def __init__(self, folder: Path, budget: Budget | None = None) -> None:
        self.folder = folder
        self.journal = folder / "journal"
        self.journal.touch()
        self.changes = 0
        self.notes: list[str] = []
        self.supervisor = Supervisor(folder, budget or Budget(), self._changed, self.notes.append)

    def _changed(self) -> None:
        self.changes += 1

    def lines(self) -> list[str]:
        return self.journal.read_text().splitlines()

    def unit(self, name: str, program: str = PROGRAM, *, group: str = "", stop_seconds: float = 10) -> Unit:
        count = self.lines().count(f"{name} begin")
        return Unit(
            name=name,
            group=group or name,
            command=[sys.executable, "-c", program, str(self.journal), name],
            environ={"PATH": os.environ["PATH"]},
            ready=self._begun(name, count),
            ready_seconds=60,
            stop_seconds=stop_seconds,
        )

    def _begun(self, name: str, before: int) -> Callable[[int], Awaitable[bool]]:
        async def ready(_pid: int) -> bool:
            return self.lines().count(f"{name} begin") > before

        return ready


async def test_processes_stop_in_the_reverse_order_of_their_start(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    for name in ("first", "second", "third"):
        await stage.supervisor.start(stage.unit(name))
    pids = [pid for group in stage.supervisor.pids().values() for pid in group]
    await stage.supervisor.stop()
    ends = [line for line in stage.lines() if line.endswith("end")]
    assert ends == ["third end", "second end", "first end"]
    assert len(pids) == 3
    assert not any(alive(pid) for pid in pids)


async def test_a_killed_process_is_started_again_with_another_id(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    await stage.supervisor.start(stage.unit("victim"))
    child = stage.supervisor.children["victim"]
    before, changes = child.pid, stage.changes
    os.kill(before, signal.SIGKILL)
    await until(lambda: child.pid not in (0, before) and child.state == "ready")
    assert stage.changes > changes
    assert any("restart in" in note for note in stage.notes)
    await stage.supervisor.stop()
    assert not alive(child.process.pid if child.process else 0)


async def test_a_process_that_keeps_dying_uses_up_its_budget_and_the_reason_is_told(tmp_path: Path) -> None:
    stage = Stage(tmp_path, Budget(restarts=2, within_seconds=60))
    await stage.supervisor.start(stage.unit("victim"))
    child = stage.supervisor.children["victim"]
    seen: set[int] = set()

    def strike() -> bool:
        if child.pid and child.state == "ready" and child.pid not in seen:
            seen.add(child.pid)
            os.kill(child.pid, signal.SIGKILL)
        return stage.supervisor.failed.done()

    await until(strike)
    assert "victim ended 3 times within 60 s" in str(stage.supervisor.failed.result())
    await stage.supervisor.stop()


async def test_a_process_that_ignores_the_request_to_stop_is_killed_after_its_deadline(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    await stage.supervisor.start(stage.unit("stubborn", STUBBORN, stop_seconds=0.3))
    pid = stage.supervisor.children["stubborn"].pid
    await stage.supervisor.stop()
    assert not alive(pid)
    assert any("was killed" in note for note in stage.notes)


async def test_a_frozen_process_can_be_stopped(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    await stage.supervisor.start(stage.unit("frozen"))
    child = stage.supervisor.children["frozen"]
    pid = child.pid
    child.signal(signal.SIGSTOP)
    await stage.supervisor.stop()
    assert not alive(pid)
    assert stage.lines()[-1] == "frozen end"


async def test_a_program_that_ends_before_it_is_ready_shows_its_last_lines(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    unit = stage.unit("broken", "import sys; print('the reason'); sys.exit(9)")
    with pytest.raises(ProcessFault, match="broken ended with code 9") as caught:
        await stage.supervisor.start(unit)
    assert caught.value.log == ["the reason"]
    await stage.supervisor.stop()


async def test_a_task_that_fails_is_a_fault_and_one_that_hangs_is_killed(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    with pytest.raises(ProcessFault, match="seed ended with code 3"):
        await stage.supervisor.run(Task(name="seed", command=[sys.executable, "-c", "raise SystemExit(3)"]))
    with pytest.raises(ProcessFault, match="took longer"):
        hanging = [sys.executable, "-c", "import signal; signal.pause()"]
        await stage.supervisor.run(Task(name="seed", command=hanging, seconds=0.3))
    assert await stage.supervisor.run(Task(name="seed", command=[sys.executable, "-c", "print('done')"])) == "done"


async def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    port = free_port()
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port)
    unit = Unit(name="late", group="late", command=["false"], ready=stage._begun("late", 0), ports=(port,))
    with pytest.raises(PortTakenFault, match=f"port {port} for late is taken"):
        await stage.supervisor.start(unit)
    server.close()
    await server.wait_closed()
    assert stage.supervisor.children == {}
    await until(lambda: is_free(port))


async def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from pathlib import Path
from wardmesh_cli.child import Unit
from wardmesh_cli.supervisor import Budget, Supervisor
async def main():
    async def ready(pid): return True
    supervisor = Supervisor(Path(sys.argv[1]), Budget(), lambda: None, print)
    await supervisor.start(Unit(name="child", group="child", command=["sleep", "600"], ready=ready,
                                environ={"PATH": "/usr/bin:/bin"}))
    print(supervisor.pids()["child"][0], flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(await asyncio.wait_for(asyncio.to_thread(parent.stdout.readline), 60))
        assert alive(pid)
        parent.kill()
        parent.wait(10)
    await until(lambda: not alive(pid))
