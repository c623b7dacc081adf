"""A service process: health that depends on nothing shared, an orderly end, clear words when it cannot start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from engines import nats
from wardmesh_cli.ports import free_port

PROGRAM = """
import asyncio, os, sys
from contextlib import asynccontextmanager
from wardmesh_common.service import run
from wardmesh_common.settings import BusSettings, load
from wardmesh_common.contracts import IDENTIFY, Outcome

@asynccontextmanager
async def create_app(settings, bus, health):
    async def slow(call, hop):
        await asyncio.sleep(1)
        return Outcome(status=200)
    await bus.station(IDENTIFY, slow)
    yield

sys.exit(run("auth", lambda: load(BusSettings, os.environ), create_app))
"""


@contextmanager
def service(url: str, program: str = PROGRAM, **extra: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = free_port()
    environment = {**os.environ, "WARDMESH_NATS_URL": url, "WARDMESH_ADMIN_PORT": str(port), **extra}
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def verbose(admin: str) -> bytes:
    try:
        with urllib.request.urlopen(f"{admin}/startupz?verbose", timeout=20) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.read()
    except OSError:
        return b""


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.02)


@pytest.mark.requirement("DP-207", "DP-208", "NB-8")
def test_health_survives_the_loss_of_the_bus_and_a_sigterm_ends_in_order() -> None:
    with nats() as server, service(server.url) as (process, admin):
        until(lambda: status(f"{admin}/readyz") == 200)
        assert [status(f"{admin}/{p}") for p in ("livez", "startupz", "nothing")] == [200, 200, 404]
        server.kill()
        with urllib.request.urlopen(f"{admin}/readyz?verbose", timeout=20) as answer:
            assert answer.headers["content-type"] == "application/health+json"
        assert [status(f"{admin}/{p}") for p in ("livez", "readyz")] == [200, 200]
        server.start()
        until(lambda: b"connected" in verbose(admin))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.requirement("NB-2")
def test_a_service_waits_for_a_broker_that_comes_up_later() -> None:
    with nats() as server:
        server.kill()
        with service(server.url) as (process, admin):
            until(lambda: status(f"{admin}/livez") == 200)
            assert status(f"{admin}/readyz") == 503
            server.start()
            until(lambda: status(f"{admin}/readyz") == 200)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0


def test_a_sigterm_while_the_service_is_still_starting_is_obeyed() -> None:
    starting = PROGRAM.replace("async def slow", "await asyncio.sleep(60)\n    async def slow")
    with nats() as server, service(server.url, program=starting) as (process, admin):
        until(lambda: b"connected" in verbose(admin))
        assert status(f"{admin}/readyz") == 503
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_wrong_setting_is_one_clear_line_and_exit_78() -> None:
    with service("nats://127.0.0.1:1", WARDMESH_DRAIN_SECONDS="soon") as (process, _):
        output, _ = process.communicate(timeout=20)
        assert process.returncode == 78
        assert output.decode().strip() == "wardmesh-auth: WARDMESH_DRAIN_SECONDS is not a valid float"
