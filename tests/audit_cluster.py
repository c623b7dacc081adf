"""Three nats-servers with replicated JetStream, each with a store of its own that tests may damage or throw away."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from engines import Nats, answers
from wardmesh_cli import recipes
from wardmesh_cli.account import give
from wardmesh_cli.binaries import Binaries
from wardmesh_cli.ports import free_port

CONFIG = """
server_name: n{number}
jetstream {{ store_dir: $WARDMESH_NATS_STORE, sync_interval: always }}
max_payload: 8MB
cluster {{ name: ledger, listen: "127.0.0.1:{own}", routes: [{routes}] }}
"""


@dataclass
class Cluster:
    nodes: list[Nats]

    @property
    def url(self) -> str:
        return ",".join(node.url for node in self.nodes)

    def healthy(self, seconds: float = 60.0) -> None:
        """Every server that runs has caught up with its groups."""
        limit = time.monotonic() + seconds
        running = [node for node in self.nodes if node.process is not None]
        while not all(answers(f"{node.monitor}/healthz") for node in running):
            assert time.monotonic() < limit, "the cluster did not become healthy"
            time.sleep(0.1)

    def wipe(self, number: int) -> None:
        """The machine is lost: a new one with the same name and an empty disk takes its place."""
        node = self.nodes[number]
        node.kill()
        shutil.rmtree(node.home / "store")
        (node.home / "store").mkdir()
        give(node.home)
        node.start()


def blocks(node: Nats, stream: str) -> list[Path]:
    """The files that hold the messages of one stream on this server."""
    return sorted((node.home / "store").glob(f"jetstream/*/streams/{stream}/msgs/*.blk"))


def flip(path: Path, *, near: bytes) -> None:
    """One bit inside the first record that holds these bytes. The server must be down."""
    data = bytearray(path.read_bytes())
    at = data.index(near)
    data[at] ^= 0x04
    path.write_bytes(bytes(data))


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    ports: set[int] = set()

    def port() -> int:
        found = free_port(taken=ports)
        ports.add(found)
        return found

    routes = [port() for _ in range(3)]
    nodes: list[Nats] = []
    with contextlib.ExitStack() as stack:
        for number, own in enumerate(routes):
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wm-nats-", dir="/tmp")))
            home.chmod(0o755)
            others = ", ".join(f'"nats://127.0.0.1:{each}"' for each in routes if each != own)
            config = home / "nats.conf"
            config.write_text(CONFIG.format(number=number, own=own, routes=others))
            config.chmod(0o644)
            (home / "store").mkdir()
            give(home)
            client, monitor = port(), port()
            recipe = recipes.nats(Binaries(), config, client, monitor, home / "store")
            node = Nats(recipe, home, lambda _pid: True, port=client, http_port=monitor)
            stack.callback(node.stop)
            node.start()
            nodes.append(node)
        made = Cluster(nodes)
        made.healthy()
        yield made


def stored(node: Nats, stream: str) -> dict[str, Any]:
    """What this server says of its copy of a stream."""
    with urllib.request.urlopen(f"{node.monitor}/jsz?streams=true", timeout=5) as answer:
        accounts = msgspec.json.decode(answer.read())["account_details"]
    return next(each for account in accounts for each in account["stream_detail"] if each["name"] == stream)
