"""How each embedded engine is laid out and started: command lines and configuration texts, without processes."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from wardmesh_cli.account import give, spawn_options
from wardmesh_cli.binaries import Binaries

INITDB_SECONDS = 120
CONNECT_SECONDS = 20

PLAIN_NATS = """\
jetstream { store_dir: $WARDMESH_NATS_STORE, sync_interval: always }
max_payload: 8MB
"""


@dataclass(frozen=True)
class Recipe:
    """One engine, ready to be started as a direct child."""

    command: list[str]
    environ: dict[str, str] = field(default_factory=dict[str, str])


def prepare_postgres(binaries: Binaries, data: Path, *, durable: bool) -> None:
    """Create the cluster unless it is there already. `data` must be a directory of the engines' account."""
    if (data / "PG_VERSION").exists():
        return
    command = [str(binaries.postgres_bin() / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust"]
    command += ["--encoding=UTF8", "--locale=C", *([] if durable else ["--no-sync"])]
    options = spawn_options(unprivileged=True)
    done = subprocess.run(
        command,
        cwd=data,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=INITDB_SECONDS,
        check=False,
        **options,
    )
    if done.returncode != 0:
        raise OSError(f"initdb ended with code {done.returncode}: {done.stderr.strip()[-400:]}")


def postgres(binaries: Binaries, data: Path, port: int, *, durable: bool) -> Recipe:
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "200",
        "shared_buffers": "64MB",
        "logging_collector": "off",
    }
    if not durable:
        options.update(fsync="off", full_page_writes="off", synchronous_commit="off")
    command = [str(binaries.postgres_bin() / "postgres"), "-D", str(data)]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    return Recipe(command, {"PATH": "/usr/bin:/bin", "LC_ALL": "C"})


def postgres_ready(data: Path, pid: int) -> bool:
    """The postmaster says `ready` on line 8 of its pid file, and the file is that of our own child."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) > 7 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def nats(binaries: Binaries, config: Path, port: int, http_port: int, store: Path) -> Recipe:
    command = [str(binaries.nats_server()), "-c", str(config), "-a", "127.0.0.1", "-p", str(port)]
    command += ["-m", str(http_port)]  # wins over the configuration
    environ = {
        "PATH": "/usr/bin:/bin",
        "WARDMESH_NATS_HOST": "127.0.0.1",
        "WARDMESH_NATS_PORT": str(port),
        "WARDMESH_NATS_MONITOR": f"127.0.0.1:{http_port}",
        "WARDMESH_NATS_STORE": json.dumps(str(store)),
    }
    return Recipe(command, environ)


def cerbos(binaries: Binaries, home: Path, policies: Path, grpc_address: str, http_port: int, *, watch: bool) -> Recipe:
    """Writes the configuration into `home` and hands `home` over to the engines' account."""
    config = {
        "server": {
            "grpcListenAddr": grpc_address,
            "httpListenAddr": f"127.0.0.1:{http_port}",
            "udsFileMode": "0766",
        },
        "storage": {"driver": "disk", "disk": {"directory": str(policies), "watchForChanges": watch}},
        "telemetry": {"disabled": True},
        "audit": {"enabled": False},
    }
    (home / "cerbos.json").write_text(json.dumps(config))  # JSON is YAML too
    give(home)
    command = [str(binaries.cerbos()), "server", f"--config={home / 'cerbos.json'}", "--log-level=warn"]
    return Recipe(command, {"PATH": "/usr/bin:/bin", "CERBOS_NO_TELEMETRY": "1", "HOME": str(home)})


async def ensure_database(port: int, database: str, owner: str = "postgres") -> None:
    """Create a database, and the role that owns it, unless they exist."""
    connection = await asyncpg.connect(
        host="127.0.0.1", port=port, user="postgres", database="postgres", timeout=CONNECT_SECONDS
    )
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", owner):
            await connection.execute(f"CREATE ROLE {_quoted(owner)} LOGIN")
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database):
            await connection.execute(f"CREATE DATABASE {_quoted(database)} OWNER {_quoted(owner)}")
    finally:
        await connection.close(timeout=CONNECT_SECONDS)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
