"""The whole mesh as real processes, started once for all tests of this directory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mesh.platform_server import Platform, platform_server
from mesh.traffic import steady
from wardmesh_cli.account import spawn_options
from wardmesh_cli.control import ask
from wardmesh_cli.state import PortBook

START_SECONDS = 300
STOP_SECONDS = 90
# Every browser of a run has the same address: what is limited is proven where one gateway is tested.
# Content is uploaded as well, more than the 10 MB that JSON may have.
# A busy machine is away for a quarter of a second now and then; what the default does is proven with the recorder.
PATIENT = {"WARDMESH_AUDIT_DEADLINE_SECONDS": "2"}
SETTINGS = {
    "auth": PATIENT,
    "policy": PATIENT,
    "fhir-proxy": PATIENT,
    "audit": PATIENT,
    "gateway": {
        **PATIENT,
        "WARDMESH_RATE_LIMIT": "1000000",
        "WARDMESH_CALLBACK_LIMIT": "1000000",
        "WARDMESH_MAX_BODY_BYTES": str(32 * 1024 * 1024),
    },
}
REPLICAS = "gateway=2,auth=2,policy=2,fhir-proxy=2,audit=2"
# Who keeps what stands in the files of platforms.
READERS = ("fhir-proxy", "auth", "policy", "gateway")
READY_SECONDS = 120
_FAILED = pytest.StashKey[bool]()


class Mesh:
    """A `wardmesh up` of our own, and the levers that fault tests pull. `ready` is read anew on every use."""

    def __init__(self, process: subprocess.Popen[bytes], ready_file: Path, output: Path) -> None:
        self.process = process
        self.ready_file = ready_file
        self.output = output

    @property
    def ready(self) -> dict[str, Any]:
        return json.loads(self.ready_file.read_text())

    def token(self, person: str) -> str:
        return self.ready["people"][person]["token"]

    def pids(self, name: str) -> list[int]:
        return self.ready["processes"].get(name, [])

    def control(self, command: str, name: str = "") -> dict[str, Any]:
        answer = ask(Path(self.ready["control"]), command, name)
        assert answer.get("ok"), answer
        return answer

    def status(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.control("status")["processes"]}

    def kill(self, name: str) -> None:
        """SIGKILL to one process or all replicas of a service; the supervisor, which has noticed, starts them again."""
        killed = self._running(name)
        self.control("kill", name)
        limit = time.monotonic() + READY_SECONDS
        while killed & self._running(name):
            assert time.monotonic() < limit, f"{name} does not end"
            time.sleep(0.02)

    def freeze(self, name: str) -> None:
        self.control("freeze", name)

    def thaw(self, name: str) -> None:
        self.control("thaw", name)

    def restart(self, name: str) -> None:
        """In order, one replica after the other; returns when the last one is ready."""
        self.control("restart", name)

    def stop(self, name: str) -> None:
        self.control("stop", name)

    def start(self, name: str) -> None:
        self.control("start", name)

    def until_ready(self, name: str, seconds: float = READY_SECONDS) -> None:
        """Wait until every replica of this service, or every process without a name, runs and is ready."""
        limit = time.monotonic() + seconds
        # One that was killed a moment ago is called ready until its end was noticed; then it has no id any more.
        while late := [row["name"] for row in self._rows(name) if row["state"] != "ready" or not row["pid"]]:
            assert time.monotonic() < limit, f"{late} did not come back:\n{self.output.read_text()[-2000:]}"
            time.sleep(0.1)

    def settle(self) -> None:
        """Wait until every process is ready: what the test before killed is somebody else's trouble."""
        self.until_ready("")

    def _rows(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self.status().values() if name in ("", row["name"], row["group"])]

    def _running(self, name: str) -> set[int]:
        return {row["pid"] for row in self._rows(name)} - {0}

    def files(self) -> dict[Path, tuple[int, bytes]]:
        """When the files of platforms were written, and what stands in them."""
        folder = Path(self.ready["platforms_dir"])
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir() if path.is_file()}

    def recover(self, files: dict[Path, tuple[int, bytes]]) -> None:
        """After a test that failed or left other files behind: as it was, known to all, and calls are answered."""
        for row in self._rows(""):
            if row["state"] == "frozen":
                self.thaw(row["name"])
        self.settle()
        if (now := self.files()) != files:
            for path in now.keys() - files.keys():
                path.unlink()
            for path, (_, content) in files.items():
                path.write_bytes(content)
            for service in READERS:
                self.restart(service)
        address = self.ready["gateway"], "/api/fhir/store/Patient/FCE57", self.token("demo_doctor")
        asyncio.run(steady(*address, calls=12))

    def logs(self, name: str) -> list[dict[str, Any]]:
        """Log lines of one process, as they were written; one that is being written is none yet."""
        path = Path(self.ready["logs"]) / f"{name}.log"
        return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def audit(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("wardmesh-audit")), *arguments]
        environ = {**os.environ, **self.ready["audit_environment"]}
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)

    def audit_verify(self) -> subprocess.CompletedProcess[str]:
        """What is incomplete or cannot be verified yet may be in a moment; what was tampered with stays so."""
        limit = time.monotonic() + READY_SECONDS
        while (done := self.audit("verify")).returncode > 1 and time.monotonic() < limit:
            time.sleep(0.5)
        return done


@contextlib.contextmanager
def running(state: Path, *arguments: str) -> Iterator[Mesh]:
    """`wardmesh up` with these arguments, stopped in order at the end."""
    ready_file, output = state / "ready-for-tests.json", state / "output.txt"
    command = [str(Path(sys.executable).with_name("wardmesh")), "up", "--state", str(state), *arguments]
    command += ["--ready-file", str(ready_file)]
    for service, variables in SETTINGS.items():
        for name, value in variables.items():
            command += ["--set", f"{service}:{name}={value}"]
    with output.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, **spawn_options(last_signal=signal.SIGTERM)
        )
    mesh = Mesh(process, ready_file, output)
    try:
        limit = time.monotonic() + START_SECONDS
        while not ready_file.exists():
            if process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"the mesh did not start:\n{output.read_text()[-4000:]}")
            time.sleep(0.1)
        yield mesh
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.terminate()  # the second request ends everything at once
            process.wait(10)


def content_of(files: dict[Path, tuple[int, bytes]]) -> Iterator[tuple[Path, bytes]]:
    return ((path, content) for path, (_, content) in files.items())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report


@pytest.fixture(autouse=True)
def as_found(request: pytest.FixtureRequest) -> Iterator[None]:
    """The next test begins with a mesh that is ready and has its files: one failure is one failure, with its name."""
    names = [name for name in ("mesh", "lone_mesh") if name in request.fixturenames]
    found = [(mesh, mesh.files()) for mesh in map(request.getfixturevalue, names)]
    yield
    for mesh, files in found:
        before, after = (dict(content_of(each)) for each in (files, mesh.files()))
        left = [path.name for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
        if left or request.node.stash.get(_FAILED, False):
            mesh.recover(files)
        mesh.settle()
        assert not left, f"{request.node.nodeid} left these files changed: {left}"


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """A FHIR server of our own; the mesh knows it as platform `own`."""
    with platform_server() as started:
        yield started


@pytest.fixture(scope="session")
def mesh(platform: Platform) -> Iterator[Mesh]:
    """Two replicas of every service behind the balancer, with the conformance listener and a platform of our own."""
    # Below /tmp and open to walk through: the engines' account must reach its data.
    with tempfile.TemporaryDirectory(prefix="wm-mesh-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        arguments = ("--replicas", REPLICAS, "--conformance", "--platform", f"own={platform.url}")
        with running(Path(folder), *arguments) as started:
            yield started


@pytest.fixture(scope="session")
def lone_mesh() -> Iterator[Mesh]:
    """One replica of everything, without a balancer; its ledger may be spoilt by the last test that uses it.

    People sign in at the local hospital here, as a deployment of the SMART server has it (SM-1).
    """
    with tempfile.TemporaryDirectory(prefix="wm-lone-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        with running(Path(folder), *smart_server(Path(folder))) as started:
            yield started


def smart_server(state: Path) -> list[str]:
    """Settings in the words of SM-9; the hospital's port is chosen before the mesh starts."""
    book = PortBook(state / "ports.json")
    base = f"http://127.0.0.1:{book.take('fhir-store')}/smart/fhir"
    book.release()
    client = {"SMART_CLIENT_ID": "wardmesh-clinician", "SMART_SCOPE": "openid fhirUser offline_access user/*.*"}
    settings = {
        "auth": {"FHIR_BASE_URL": base, "WARDMESH_SMART_PLATFORM": "local-smart-clinician", **client},
        "gateway": {"FHIR_BASE_URL": base, "WARDMESH_SMART_PLATFORM": "local-smart-clinician"},
    }
    roles = ["writer", "publisher", "keys", "api", "detect", "retention", "log"]
    settings["audit"] = {"WARDMESH_AUDIT_ROLES": json.dumps(roles)}
    settings["gateway"] |= {"ALLOWED_ORIGINS": "https://app.test", "FHIR_GATEWAY_REDIS_URL": "redis://cache:6379"}
    pairs = ((service, name, value) for service, given in settings.items() for name, value in given.items())
    return [part for service, name, value in pairs for part in ("--set", f"{service}:{name}={value}")]
