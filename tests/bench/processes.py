"""Starts what is measured: the fixed platform, the bare proxy, a whole mesh in front of that platform."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def process(*arguments: str) -> Generator[subprocess.Popen[bytes]]:
    started = subprocess.Popen([sys.executable, *arguments], stdin=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.terminate()
        started.wait(10)


@contextmanager
def mesh(upstream: str) -> Generator[dict[str, Any]]:
    """A whole mesh whose platform `bench` is the fixed upstream; what its ready file says."""
    with tempfile.TemporaryDirectory(prefix="wardmesh-bench-") as directory:
        ready = Path(directory) / "ready.json"
        command = [str(Path(sys.executable).with_name("wardmesh")), "up", "--state", f"{directory}/state"]
        command += ["--platform", f"bench={upstream}/fhir", "--ready-file", str(ready)]
        command += ["--set", "gateway:WARDMESH_RATE_LIMIT=1000000000"]
        started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            limit = time.monotonic() + 300
            while not ready.exists():
                if started.poll() is not None or time.monotonic() > limit:
                    raise SystemExit("bench: the mesh did not start")
                time.sleep(0.2)
            yield json.loads(ready.read_text())
        finally:
            started.terminate()
            started.wait(60)
