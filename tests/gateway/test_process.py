"""`wardmesh-gateway` as it is started: on a broker with the mesh's permissions, stopped by SIGTERM."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import engines
from common.test_permissions import CONF, USERS, new_key
from wardmesh_cli.ports import free_port

KEYS = '["a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s"]'


@pytest.fixture(scope="module")
def broker() -> Iterator[tuple[engines.Nats, str]]:
    keys = {user: new_key() for user in USERS}
    environment = {f"WARDMESH_NKEY_{user.upper().replace('-', '_')}": public for user, (_, public) in keys.items()}
    environment |= {"WARDMESH_NATS_HOST": "127.0.0.1", "WARDMESH_NATS_MONITOR": "127.0.0.1:-1"}
    with engines.nats(CONF.read_text(), environment) as server:
        yield server, keys["gateway"][0]


def command() -> list[str]:
    return [str(Path(sys.executable).with_name("wardmesh-gateway"))]


@contextlib.contextmanager
def started(broker: tuple[engines.Nats, str], log: Path, **more: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    server, seed = broker
    port, admin = free_port(), free_port()
    environ = {
        **os.environ,
        "WARDMESH_NATS_URL": server.url,
        "WARDMESH_NATS_SEED": seed,
        "WARDMESH_PORT": str(port),
        "WARDMESH_ADMIN_PORT": str(admin),
        "WARDMESH_GATEWAY_KEYS": KEYS,
        **more,
    }
    with log.open("wb") as out:
        process = subprocess.Popen(command(), env=environ, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + 90
        while not _ready(admin):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < limit, log.read_text()
            time.sleep(0.05)
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(10)


def _ready(admin: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{admin}/readyz", timeout=20).status_code == 200
    except httpx.TransportError:
        return False


def test_it_comes_up_without_the_other_services_and_stops_in_order(
    broker: tuple[engines.Nats, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with started(broker, log) as (process, base):
        assert httpx.get(f"{base}/health", timeout=20).json()["platforms_registered"] == 0
        assert httpx.get(f"{base}/api/fhir/store/Patient", timeout=20).status_code == 503
        assert httpx.post(f"{base}/mcp", json={}, timeout=20).status_code == 401
        assert "resource_metadata" in httpx.get(f"{base}/mcp", timeout=20).headers["www-authenticate"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    text = log.read_text()
    assert "ermissions" not in text
    assert "Traceback" not in text


def test_a_configuration_fault_is_one_clear_line_and_exit_78() -> None:
    environ = {**os.environ, "WARDMESH_GATEWAY_KEYS": "CANARY"}
    ended = subprocess.run(command(), env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 78
    assert ended.stderr == "wardmesh-gateway: WARDMESH_GATEWAY_KEYS is not a JSON list of base64url keys\n"
