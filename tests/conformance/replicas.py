"""Conformance listeners as real processes over a real broker, without the rest of the mesh."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from conformance.round_robin import RoundRobin, round_robin
from engines import nats
from wardmesh_cli.ports import free_port

READY_SECONDS = 90.0


class Listeners:
    """Where the pack answers, and through what."""

    def __init__(self, ports: list[int], url: str, proxy: RoundRobin | None) -> None:
        self.ports, self.url, self.proxy = ports, url, proxy


@asynccontextmanager
async def listeners(count: int, home: Path) -> AsyncIterator[Listeners]:
    """`count` replicas; more than one stand behind a per-request round robin without affinity."""
    keys = json.dumps([base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()])
    with nats() as broker, contextlib.ExitStack() as processes:
        ports: list[int] = []
        started: list[tuple[subprocess.Popen[bytes], int, Path]] = []
        for _ in range(count):
            ports.append(free_port(taken=set(ports)))
            environ = os.environ | {
                "WARDMESH_NATS_URL": broker.url,
                "WARDMESH_GATEWAY_KEYS": keys,
                "WARDMESH_CONFORMANCE_PORT": str(ports[-1]),
            }
            log = processes.enter_context((home / f"replica-{ports[-1]}.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", "wardmesh_gateway.fixtures"], env=environ, stdout=log, stderr=log
            )
            processes.callback(_stop, process)
            started.append((process, ports[-1], home / f"replica-{ports[-1]}.log"))
        for process, port, log_file in started:
            await _listening(process, port, log_file)
        if count == 1:
            yield Listeners(ports, f"http://127.0.0.1:{ports[0]}/mcp", None)
            return
        front = free_port(taken=set(ports))
        async with round_robin(front, ports) as proxy:
            yield Listeners(ports, f"http://127.0.0.1:{front}/mcp", proxy)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


async def _listening(process: subprocess.Popen[bytes], port: int, log_file: Path) -> None:
    async with asyncio.timeout(READY_SECONDS):
        while True:
            assert process.poll() is None, log_file.read_text(errors="replace")[-3000:]
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
