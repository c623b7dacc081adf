"""An orderly restart starts the successor first; a socket that the supervisor holds survives every process."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from wardmesh_cli.child import Unit
from wardmesh_cli.faults import PortTakenFault, ProcessFault
from wardmesh_cli.listeners import Listeners
from wardmesh_cli.ports import free_port, is_free
from wardmesh_cli.probes import http_ok
from wardmesh_cli.supervisor import Budget, Supervisor

pytestmark = pytest.mark.anyio

# Listens on its admin port (argument 1), journals in argument 2, and answers on an inherited socket (argument 3).
PROGRAM = """
import asyncio, signal, socket, sys
from aiohttp import web
async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    app = web.Application()
    async def ok(request): return web.Response(text='ok')
    app.router.add_get('/readyz', ok)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, '127.0.0.1', int(sys.argv[1])).start()
    if sys.argv[3] != '-1':
        await web.SockSite(runner, socket.socket(fileno=int(sys.argv[3]))).start()
    with open(sys.argv[2], 'a') as out: out.write('begin ' + sys.argv[1] + '\\n')
    await stop.wait()
    with open(sys.argv[2], 'a') as out: out.write('end ' + sys.argv[1] + '\\n')
    await runner.cleanup()
asyncio.run(main())
"""


def unit(journal: Path, admin: int, *, listeners: dict[int, int] | None = None, program: str = PROGRAM) -> Unit:
    number = next(iter((listeners or {}).values()), -1)

    async def ready(_pid: int) -> bool:
        return await http_ok(admin, "/readyz")

    return Unit(
        name="victim",
        group="victim",
        command=[sys.executable, "-c", program, str(admin), str(journal), str(number)],
        environ={"PATH": os.environ["PATH"]},
        ready=ready,
        ports=(*(listeners or {}), admin),
        admin_port=admin,
        listeners=listeners or {},
        ready_seconds=60,
    )


def twins(journal: Path, listeners: dict[int, int] | None = None) -> Unit:
    first = free_port()
    other = unit(journal, free_port(taken={first}), listeners=listeners)
    return replace(unit(journal, first, listeners=listeners), twin=other)


async def test_the_successor_is_ready_before_the_old_process_ends_and_they_take_turns(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    supervisor = Supervisor(tmp_path, Budget(), lambda: None, print)
    pair = twins(journal)
    assert pair.twin is not None
    one, two = pair.admin_port, pair.twin.admin_port
    await supervisor.start(pair)
    first = supervisor.pids()["victim"]
    for _ in range(2):
        await supervisor.succeed(supervisor.children["victim"])
    assert list(supervisor.children) == ["victim"]
    second = supervisor.pids()["victim"]
    assert len(second) == 1
    assert second != first
    await supervisor.stop()
    words = [f"begin {one}", f"begin {two}", f"end {one}", f"begin {one}", f"end {two}", f"end {one}"]
    assert journal.read_text().splitlines() == words


async def test_a_successor_that_fails_leaves_the_old_process_in_its_place(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    supervisor = Supervisor(tmp_path, Budget(), lambda: None, print)
    good = unit(journal, free_port())
    broken = unit(journal, free_port(taken={good.admin_port}), program="import sys; print('why'); sys.exit(9)")
    await supervisor.start(replace(good, twin=broken))
    before = supervisor.pids()
    with pytest.raises(ProcessFault, match="victim ended with code 9"):
        await supervisor.succeed(supervisor.children["victim"])
    assert supervisor.pids() == before
    assert supervisor.children["victim"].state == "ready"
    await supervisor.stop()


async def test_connections_wait_in_the_socket_that_we_hold_while_processes_come_and_go(tmp_path: Path) -> None:
    listeners, port = Listeners(), free_port()
    supervisor = Supervisor(tmp_path, Budget(), lambda: None, print)
    await supervisor.start(twins(tmp_path / "journal", listeners.bind(port)))
    assert listeners.bind(port) == listeners.bind(port)
    going, answers = True, list[bool]()

    async def call() -> None:
        while going:
            answers.append(await http_ok(port, "/readyz"))

    callers = [asyncio.create_task(call()) for _ in range(3)]
    victim = supervisor.children["victim"]
    await supervisor.stop_child(victim)  # nobody accepts now, and nobody is refused
    await supervisor.start_child(victim)
    going = False
    await asyncio.gather(*callers)
    assert answers
    assert all(answers)
    listeners.close()
    await supervisor.stop()
    assert is_free(port)


def test_a_port_that_somebody_else_listens_on_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTakenFault, match=f"port {port} is taken"):
            Listeners().bind(port)
