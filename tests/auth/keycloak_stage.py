"""Keycloak out of Maven Central as a real, independent identity provider: fetched once, started over one realm file."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import engines
import maven

VERSION = "26.0.8"
REALM = Path(__file__).parent / "keycloak" / "realm.json"
_START_SECONDS = 300
_MISSING = "SKIPPED KEYCLOAK"


def home() -> Path:
    """The unpacked distribution: WARDMESH_KEYCLOAK, or a copy of our own. Skips where it cannot be had."""
    named = os.environ.get("WARDMESH_KEYCLOAK", "")
    if named:
        return Path(named)
    if not shutil.which("java"):
        pytest.skip(f"{_MISSING}: Java is not on this machine")
    found = maven.cache() / f"keycloak-{VERSION}"
    if not (found / "bin" / "kc.sh").exists():
        _fetch(maven.cache())
    return found


def _fetch(cache: Path) -> None:
    archive = maven.copied(f"org.keycloak:keycloak-quarkus-dist:{VERSION}:zip", cache, _MISSING)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(cache)
    (cache / f"keycloak-{VERSION}" / "bin" / "kc.sh").chmod(0o755)
    archive.unlink()


@contextlib.contextmanager
def keycloak(folder: Path, client_jwks: dict[str, object]) -> Iterator[str]:
    """The issuer of the realm. Data and the built server stay in `folder`, the distribution is only linked."""
    program, port, management = home(), engines.free_port(), engines.free_port()
    own = folder / "keycloak"
    shutil.copytree(program, own, copy_function=_linked)
    imported = own / "data" / "import"
    imported.mkdir(parents=True, exist_ok=True)
    escaped = json.dumps(json.dumps(client_jwks))[1:-1]
    (imported / "realm.json").write_text(REALM.read_text().replace("@CLIENT_JWKS@", escaped))
    command = [
        str(own / "bin" / "kc.sh"),
        "start-dev",
        "--import-realm",
        f"--http-port={port}",
        f"--http-management-port={management}",
        "--http-host=127.0.0.1",
        "--cache=local",
    ]
    environ = {**os.environ, "JAVA_OPTS_APPEND": "-Xmx384m"}
    log = folder / "keycloak.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environ, stdout=out, stderr=out, start_new_session=True)
    issuer = f"http://127.0.0.1:{port}/realms/clinic"
    try:
        limit = time.monotonic() + _START_SECONDS
        while not engines.answers(f"{issuer}/.well-known/openid-configuration"):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < limit, "Keycloak did not start in time"
            time.sleep(0.3)
        yield issuer
    finally:
        # The script starts Java as its child: the whole group ends, and nothing but this group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def _linked(source: str, target: str) -> None:
    """Jars are linked, scripts and what the build rewrites are copied."""
    if source.endswith(".jar") and "/quarkus/" not in source:
        Path(target).symlink_to(source)
    else:
        shutil.copy2(source, target)
