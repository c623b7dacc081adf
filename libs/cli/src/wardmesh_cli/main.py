"""The `wardmesh` command: `up` and `demo` in the foreground, everything else against a running mesh."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from argparse import Namespace
from pathlib import Path

from wardmesh_cli import demo, status, stdio
from wardmesh_cli.binaries import EngineMissingError
from wardmesh_cli.control import ask
from wardmesh_cli.faults import NotRunningFault, ProcessFault, StartFault
from wardmesh_cli.mesh import Mesh, explain, prepared
from wardmesh_cli.options import UpOptions, parser, up_options
from wardmesh_cli.progress import Terminal
from wardmesh_cli.services import program
from wardmesh_cli.state import State

INTERRUPTED = 130
_SETTINGS = {"audit": "audit", "fhir-store": "store"}  # whose settings the ready file holds


def main() -> int:
    arguments = parser().parse_args()
    terminal = Terminal()
    try:
        return _run(arguments, terminal)
    except StartFault as fault:
        return explain(fault, terminal)
    except (EngineMissingError, PermissionError, FileNotFoundError) as error:
        terminal.fault(str(error))
        return 70


_SERVICES = {"audit": "audit", "store": "fhir-store"}  # commands that become a service's own program


def _run(arguments: Namespace, terminal: Terminal) -> int:
    if arguments.command in {"up", "demo"}:
        show = arguments.command == "demo"
        return asyncio.run(_stay_up(up_options(arguments), terminal, show=show, once=show and arguments.once))
    if arguments.command == "stdio":
        narrowed = stdio.narrowing(read_only=arguments.readonly, tools=arguments.allowed_tools)
        return stdio.run(arguments.url, arguments.profile, dict(os.environ), narrowed)
    state = State(arguments.state)
    if arguments.command == "status":
        return status.show(state, terminal, as_json=arguments.json)
    if arguments.command in _SERVICES:
        return _become(state, _SERVICES[arguments.command], arguments)
    if arguments.command == "platforms":
        return _platforms(state, arguments)
    return _control(state, arguments.command, arguments.name, terminal)


async def _stay_up(options: UpOptions, terminal: Terminal, *, show: bool, once: bool) -> int:
    stop = asyncio.Event()
    async with prepared(options, terminal) as mesh:
        _obey_signals(stop, mesh)
        starting = asyncio.create_task(_start(mesh, terminal))
        code = await _until(stop, starting, mesh)
        if code is not None:
            return code
        if show:
            told = asyncio.create_task(demo.perform(mesh, terminal))
            code = await _until(stop, told, mesh)
            if code is not None or once:
                return told.result() if code is None else code
        else:
            demo.connect(mesh, terminal)
        terminal.line("\n  Ctrl-C stops everything; a second one at once.")
        code = await _until(stop, asyncio.create_task(stop.wait()), mesh)
        terminal.line("\n  stopping")
    return code or 0


async def _start(mesh: Mesh, terminal: Terminal) -> None:
    terminal.title(f"wardmesh in {mesh.layout.state.root}")
    await mesh.start()
    terminal.line(f"  ready after {terminal.elapsed():.1f} s")


async def _until(stop: asyncio.Event, work: asyncio.Task[object], mesh: Mesh) -> int | None:
    """None when the work is done; otherwise the exit code. Raises what the work or a lost process raises."""
    stopped = asyncio.create_task(stop.wait())
    failed = mesh.supervisor.failed
    try:
        await asyncio.wait({work, stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            raise failed.result()
        if work.done():
            work.result()
            return 0 if stop.is_set() else None
        return INTERRUPTED
    finally:
        for task in (work, stopped):
            task.cancel()
        await asyncio.gather(work, stopped, return_exceptions=True)


def _obey_signals(stop: asyncio.Event, mesh: Mesh) -> None:
    """The first signal asks everything to end in order; the second one ends it."""

    def receive() -> None:
        if stop.is_set():
            mesh.supervisor.kill_all()
            os._exit(INTERRUPTED)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, receive)


def _control(state: State, command: str, name: str, terminal: Terminal) -> int:
    answer = ask(state.control_socket, command, name)
    if not answer.get("ok"):
        raise ProcessFault(str(answer.get("fault", "no answer")), list(answer.get("log", [])))
    for row in answer["processes"]:
        terminal.line(f"  {row['name']:<20} {row['state']:<10} {row['pid'] or ''}")
    return 0


def _become(state: State, service: str, arguments: Namespace) -> int:
    """Becomes the service's own command, with the addresses and keys of the running mesh; its help needs none."""
    path = Path(program(service))
    # Without a command the program would be the service itself, a second time.
    if arguments.program_help or not arguments.arguments:
        os.execv(path, [path.name, "--help"])  # noqa: S606 - it is our own program
    if not state.ready_file.exists():
        raise NotRunningFault("no mesh runs in this state directory: start one with `wardmesh up`")
    settings = json.loads(state.ready_file.read_text())[f"{_SETTINGS[service]}_environment"]
    os.execve(path, [path.name, *arguments.arguments], {**os.environ, **settings})  # noqa: S606 - it is our own program


def _platforms(state: State, arguments: Namespace) -> int:
    """Becomes `wardmesh-fhir-proxy platforms`, on the files that the mesh of this state directory watches."""
    path = Path(program("fhir-proxy"))
    if arguments.program_help:
        os.execv(path, [path.name, "platforms", "--help"])  # noqa: S606 - it is our own program
    if not state.root.exists():
        raise NotRunningFault("there is no such state directory: start a mesh with `wardmesh up`")
    environ = {**os.environ, "WARDMESH_PLATFORMS_DIR": str(state.platforms)}
    os.execve(path, [path.name, "platforms", *arguments.arguments], environ)  # noqa: S606 - it is our own program


if __name__ == "__main__":
    sys.exit(main())
