"""Auto-reload under DEBUG: a service begins anew when its code changes, in the same process (FG-31)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import engines
from wardmesh_cli.passing import passes, without_instead
from wardmesh_cli.ports import free_port
from wardmesh_common.reloading import Code

MAIN = """
import os, sys
from contextlib import asynccontextmanager
from wardmesh_common.service import run
from wardmesh_common.settings import BusSettings, load
from wardmesh_reloadable import VERSION

@asynccontextmanager
async def create_app(settings, bus, health):
    health.checks["version"] = lambda: (True, VERSION)
    yield

sys.exit(run("reloadable", lambda: load(BusSettings, os.environ), create_app))
"""
WAIT_SECONDS = 60


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A service of one file and a version."""
    folder = tmp_path / "wardmesh_reloadable"
    folder.mkdir()
    (folder / "__init__.py").write_text('VERSION = "version-one"\n')
    (folder / "__main__.py").write_text(MAIN)
    return folder


@pytest.fixture
def service(package: Path) -> Iterator[tuple[subprocess.Popen[bytes], str, Path]]:
    with engines.nats() as broker:
        port = free_port()
        environ = {**os.environ, "PYTHONPATH": str(package.parent), "FHIR_GATEWAY_DEBUG": "true"}
        environ |= {"WARDMESH_NATS_URL": broker.url, "WARDMESH_ADMIN_PORT": str(port)}
        log = package.parent / "log"
        with log.open("wb") as out:
            process = subprocess.Popen([sys.executable, "-m", package.name], env=environ, stdout=out, stderr=out)
        try:
            yield process, f"http://127.0.0.1:{port}/readyz?verbose", log
        finally:
            process.kill()
            process.wait(10)


def until_it_says(process: subprocess.Popen[bytes], url: str, text: str, log: Path) -> None:
    limit = time.monotonic() + WAIT_SECONDS
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < limit, log.read_text()
        try:
            if text in httpx.get(url, timeout=20).text:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)


def until_logged(log: Path, text: str) -> None:
    limit = time.monotonic() + WAIT_SECONDS
    while text not in log.read_text():
        assert time.monotonic() < limit, log.read_text()
        time.sleep(0.05)


@pytest.mark.requirement("FG-31", "FG-17")
def test_a_service_begins_anew_when_its_code_changes_and_not_for_half_a_file(
    service: tuple[subprocess.Popen[bytes], str, Path], package: Path
) -> None:
    process, url, log = service
    until_it_says(process, url, "version-one", log)
    (package / "__init__.py").write_text("VERSION = (\n")
    until_logged(log, "nothing is started again")
    until_it_says(process, url, "version-one", log)
    (package / "__init__.py").write_text('VERSION = "version-two"\n')
    until_it_says(process, url, "version-two", log)


@pytest.mark.requirement("FG-31")
def test_what_changes_while_a_service_is_still_starting_is_not_missed(package: Path) -> None:
    code = Code([package])
    (package / "__init__.py").write_text('VERSION = "version-one-and-a-half"\n')
    asyncio.run(asyncio.wait_for(code.changed(), 60))


@pytest.mark.requirement("FG-31")
def test_one_command_hands_listed_names_on_to_whom_they_concern() -> None:
    assert all(passes(service, "FHIR_GATEWAY_DEBUG") for service in ("gateway", "auth", "policy", "fhir-proxy"))
    assert passes("auth", "FHIR_GATEWAY_MASTER_KEY")
    assert not passes("gateway", "FHIR_GATEWAY_MASTER_KEY"), "a secret goes to its service alone"
    assert passes("auth", "SMART_CLIENT_SECRET")
    assert not passes("gateway", "SMART_CLIENT_SECRET")
    given = {"FHIR_GATEWAY_MASTER_KEY": "k", "WARDMESH_MASTER_KEY_FILE": "/f", "WARDMESH_ISSUER": "i"}
    assert without_instead(given) == {"FHIR_GATEWAY_MASTER_KEY": "k", "WARDMESH_ISSUER": "i"}
