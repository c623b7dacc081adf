"""The databases and the broker as containers: what an operator runs instead of the embedded engines."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import nkeys
import pytest
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.waiting_utils import wait_for_logs

ROOT = Path(__file__).resolve().parents[2]
POSTGRES_IMAGE = os.environ.get("POSTGRES_IMAGE", "postgres:15-alpine")
NATS_IMAGE = os.environ.get("NATS_IMAGE", "nats:2.12-alpine")


def engine_answers() -> bool:
    """Is there an engine to talk to? A socket says so without leaving a client behind."""
    if "DOCKER_HOST" in os.environ:
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex("/var/run/docker.sock") == 0


pytestmark = [
    pytest.mark.docker,
    pytest.mark.skipif(not engine_answers(), reason="no Docker engine answers on this machine"),
]


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with PostgresContainer(POSTGRES_IMAGE, username="postgres", password="postgres") as container:
        yield container.get_connection_url(driver=None)


def migrate(service: str, **settings: str) -> None:
    command = [str(Path(sys.executable).with_name(f"wardmesh-{service}")), "migrate"]
    done = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("service", ["auth", "fhir-store"])
def test_migrations_run_on_a_stock_postgresql_image(postgres_url: str, service: str) -> None:
    name = f"wardmesh_{service.replace('-', '_')}"
    target = postgres_url.rpartition("/")[0] + f"/{name}"

    async def create() -> None:
        connection = await asyncpg.connect(postgres_url)
        await connection.execute(f"create database {name}")
        await connection.close()

    async def tables() -> int:
        connection = await asyncpg.connect(target)
        count = await connection.fetchval("select count(*) from pg_tables where schemaname = 'public'")
        await connection.close()
        return count

    asyncio.run(create())
    migrate(service, WARDMESH_DATABASE_URL=target, WARDMESH_NATS_URL="nats://127.0.0.1:1")
    assert asyncio.run(tables()) > 2


def test_the_permissions_file_is_accepted_by_a_stock_nats_image() -> None:
    keys = ("GATEWAY", "AUTH", "POLICY", "FHIR_PROXY", "AUDIT", "FHIR_STORE", "OPERATIONS")
    container = DockerContainer(NATS_IMAGE).with_command("-c /etc/wardmesh/nats.conf")
    container.with_volume_mapping(str(ROOT / "deploy" / "nats"), "/etc/wardmesh", "ro")
    container.with_env("WARDMESH_NATS_HOST", "0.0.0.0").with_env("WARDMESH_NATS_PORT", "4222")
    container.with_env("WARDMESH_NATS_MONITOR", "127.0.0.1:8222").with_env("WARDMESH_NATS_STORE", '"/tmp/store"')
    for key in keys:
        seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        container.with_env(f"WARDMESH_NKEY_{key}", nkeys.from_seed(seed).public_key.decode())
    with container as running:
        wait_for_logs(running, "Server is ready", timeout=30)
