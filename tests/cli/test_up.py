"""`wardmesh up` as a person runs it: Ctrl-C, a second start, taken ports, killed engines; nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from wardmesh_cli.account import spawn_options
from wardmesh_cli.ports import free_port, is_free

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(500)]

WARDMESH = str(Path(sys.executable).with_name("wardmesh"))
ENGINES = {"postgres", "nats", "cerbos", "idp", "hospital", "witness"}
SERVICES = {"audit", "policy", "fhir-proxy", "auth", "gateway", "fhir-store"}


@pytest.fixture(scope="module")
def state() -> Iterator[Path]:
    """One state directory for the tests of this file, in their order."""
    folder = Path(tempfile.mkdtemp(prefix="wm-up-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder / "state"
    shutil.rmtree(folder)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def marked(state: Path) -> list[int]:
    """Processes that carry this state directory in their command line or environment, whoever started them."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(state).encode() in text and alive(int(entry.name)):
                found.append(int(entry.name))
    return found


def until(condition: Callable[[], object], seconds: float = 60, why: Callable[[], str] = str) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, why()
        time.sleep(0.05)


class Up:
    """One `wardmesh up` and what it wrote."""

    def __init__(self, state: Path, *arguments: str) -> None:
        state.parent.mkdir(exist_ok=True)
        self.ready_file = state.parent / "ready.json"
        self.ready_file.unlink(missing_ok=True)  # of a run that a failed test killed
        self.output = state.parent / "output.txt"
        command = [WARDMESH, "up", "--state", str(state), "--ready-file", str(self.ready_file), *arguments]
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, **spawn_options()
            )

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def until_ready(self) -> dict[str, Any]:
        until(lambda: self.ready_file.exists() or self.process.poll() is not None, 180, self.said)
        assert self.process.poll() is None, self.said()
        return self.ready()

    def ready(self) -> dict[str, Any]:
        return json.loads(self.ready_file.read_text())

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(90)


@pytest.fixture
def up(state: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*arguments: str) -> Up:
        started.append(Up(state, *arguments))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait(10)


def no_port_is_left(ready: dict[str, Any]) -> bool:
    ports = json.loads((Path(ready["state"]) / "ports.json").read_text())
    return all(is_free(port) for port in ports.values())


def test_a_taken_port_is_named_in_one_line_and_nothing_is_left(state: Path, up: Callable[..., Up]) -> None:
    with socket.socket() as taken:
        port = free_port()
        taken.bind(("127.0.0.1", port))
        taken.listen()
        run = up("--port", str(port))
        assert run.process.wait(120) == 71
    assert f"port {port} for gateway is taken" in run.said()
    assert "Traceback" not in run.said()
    assert marked(state) == []


def test_an_engine_that_is_missing_is_named_with_what_to_do(state: Path) -> None:
    done = subprocess.run(
        [WARDMESH, "up", "--state", str(state)],
        env={**os.environ, "WARDMESH_NATS_SERVER": "/nowhere/nats-server"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 70
    assert "WARDMESH_NATS_SERVER names /nowhere/nats-server" in done.stdout
    assert marked(state) == []


def test_an_engine_that_fails_shows_its_last_lines_and_everything_started_before_it_ends(state: Path) -> None:
    done = subprocess.run(
        [WARDMESH, "up", "--state", str(state)],
        env={**os.environ, "WARDMESH_CERBOS": "/bin/false"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 69
    assert "cerbos ended with code 1 before it was ready" in done.stdout
    assert "✓ postgres" in done.stdout
    assert "\x1b[" not in done.stdout
    assert marked(state) == []


def test_commands_without_a_running_mesh_say_so(state: Path) -> None:
    for command in (["status"], ["audit", "verify"], ["restart", "auth"]):
        arguments = [WARDMESH, command[0], "--state", str(state), *command[1:]]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 3
        assert "no mesh runs in this state directory" in done.stdout


def test_commands_that_are_programs_explain_themselves_instead_of_becoming_a_second_service(state: Path) -> None:
    for command, said in (("audit", "verify"), ("store", "load"), ("platforms", "import")):
        for arguments in ([], ["--help"]):
            if command == "platforms" and not arguments:
                continue  # it has no service to become
            line = [WARDMESH, command, "--state", str(state), *arguments]
            done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
            assert (done.returncode, said in done.stdout) == (0, True), command


@pytest.mark.requirement("DP-603")
@pytest.mark.parametrize("moment", ["postgres", "schemas, streams", "auth"])
def test_ctrl_c_during_the_start_ends_it_in_order_and_leaves_nothing(
    state: Path, up: Callable[..., Up], moment: str
) -> None:
    run = up()
    until(lambda: f"✓ {moment}" in run.said() or run.process.poll() is not None, why=run.said)
    status = subprocess.run(
        [WARDMESH, "status", "--state", str(state)], capture_output=True, text=True, timeout=60, check=False
    )
    assert status.returncode == 3
    assert "the mesh is still starting" in status.stdout
    assert run.end() == 130
    assert "Traceback" not in run.said()
    assert marked(state) == []
    assert not run.ready_file.exists()


@pytest.mark.requirement("DP-602", "DP-603")
def test_ctrl_c_leaves_no_process_and_a_second_start_finds_its_data(state: Path, up: Callable[..., Up]) -> None:
    first = up()
    ready = first.until_ready()
    assert set(ready["processes"]) == ENGINES | SERVICES | {"wardmesh"}
    token = ready["people"]["demo_doctor"]["token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{ready['gateway']}/fhir/store/Patient/FCE57", headers=headers, timeout=40).status_code == 200
    pids = [pid for group in ready["processes"].values() for pid in group]
    assert all(alive(pid) for pid in pids)
    assert first.end() == 0
    assert not any(alive(pid) for pid in pids)
    assert marked(state) == []
    assert not first.ready_file.exists()
    assert no_port_is_left(ready)
    again = up().until_ready()
    assert again["audit_public_key"] == ready["audit_public_key"]
    assert again["gateway"] == ready["gateway"]
    answer = httpx.get(f"{again['gateway']}/fhir/store/Patient/FCE57", headers=headers, timeout=40)
    assert answer.status_code == 200, "a token of the first run is still good"


@pytest.mark.requirement("DP-602")
@pytest.mark.parametrize("victim", ["nats", "postgres", "cerbos", "idp"])
def test_a_killed_engine_runs_again_and_the_ready_file_says_so(state: Path, up: Callable[..., Up], victim: str) -> None:
    run = up()
    before = run.until_ready()["processes"][victim]
    os.kill(before[0], signal.SIGKILL)
    until(lambda: run.ready()["processes"].get(victim, before) != before, why=run.said)
    status = [WARDMESH, "status", "--json", "--state", str(state)]

    def good() -> bool:
        return subprocess.run(status, capture_output=True, timeout=60, check=False).returncode == 0

    until(good, why=run.said)
    assert run.end(signal.SIGTERM) == 0
    assert marked(state) == []


@pytest.mark.requirement("DP-603")
def test_nothing_survives_a_supervisor_that_is_killed(state: Path, up: Callable[..., Up]) -> None:
    run = up()
    ready = run.until_ready()
    run.process.kill()
    run.process.wait(10)
    until(lambda: not marked(state))
    assert no_port_is_left(ready)


@pytest.mark.requirement("DP-602")
def test_a_reset_starts_with_new_keys_and_a_second_ctrl_c_ends_at_once(state: Path, up: Callable[..., Up]) -> None:
    first = up()
    old = first.until_ready()["audit_public_key"]
    first.end()
    run = up("--reset")
    assert run.until_ready()["audit_public_key"] != old
    run.process.send_signal(signal.SIGINT)
    until(lambda: "stopping" in run.said())
    assert run.end() == 130
    until(lambda: not marked(state))
