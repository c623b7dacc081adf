"""The development identity provider alone, for tests: a Node process over a directory of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engines import answers
from wardmesh_cli.account import spawn_options
from wardmesh_cli.binaries import Binaries
from wardmesh_cli.engines import PEOPLE

AUDIENCE = "http://localhost:8000/mcp"
AGENT_SECRET = "a-secret-of-this-test-that-is-long-enough"


@dataclass
class Provider:
    issuer: str
    log: Path


@contextlib.contextmanager
def provider(folder: Path, port: int, **settings: str) -> Iterator[Provider]:
    """A second start over the same folder keeps keys and registrations."""
    issuer = f"http://127.0.0.1:{port}"
    binaries = Binaries()
    environ = {
        "PATH": os.environ["PATH"],
        "WARDMESH_IDP_ISSUER": issuer,
        "WARDMESH_IDP_PORT": str(port),
        "WARDMESH_IDP_STATE": str(folder),
        "WARDMESH_IDP_PEOPLE": str(PEOPLE),
        "WARDMESH_IDP_AGENT_SECRET": AGENT_SECRET,
        "WARDMESH_NODE_MODULES": str(binaries.node_modules()),
        "WARDMESH_AUDIENCE": AUDIENCE,
        **settings,
    }
    log = folder / "idp.log"
    command = [str(binaries.node()), str(PEOPLE.parent / "server.mjs")]
    with log.open("ab") as out:
        process = subprocess.Popen(command, env=environ, stdout=out, stderr=out, **spawn_options())
    try:
        limit = time.monotonic() + 60
        while not answers(f"{issuer}/healthz"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < limit
            time.sleep(0.05)
        yield Provider(issuer, log)
    finally:
        process.terminate()
        process.wait(10)
