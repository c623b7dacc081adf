"""A real nats-server for bus tests that can be killed, started again on the same port, frozen and thawed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

BINARY = Path(sys.executable).with_name("nats-server")


def free_port() -> int:
    """A port below the ephemeral range, where no outgoing connection can take it first."""
    for port in range(20_000 + os.getpid() % 5_000, 32_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


class Broker:
    def __init__(self, config: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._directory = tempfile.TemporaryDirectory(prefix="wardmesh-nats-")
        self._config = config
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.thaw()
        self.kill()
        self._directory.cleanup()

    def start(self) -> None:
        arguments = [str(BINARY), "-a", "127.0.0.1", "-p", str(self.port)]
        environment = dict(os.environ)
        if self._config is not None:
            arguments = [str(BINARY), "-c", str(self._config)]
            environment |= {
                "WARDMESH_NATS_HOST": "127.0.0.1",
                "WARDMESH_NATS_PORT": str(self.port),
                "WARDMESH_NATS_MONITOR": "127.0.0.1:-1",
                "WARDMESH_NATS_STORE": self._directory.name,
                **self._environment,
            }
        self._process = subprocess.Popen(
            arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        limit = time.monotonic() + 10
        while time.monotonic() < limit:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self._process.poll() is None, "nats-server ended"
            time.sleep(0.01)
        raise TimeoutError("nats-server did not start")

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(10)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)


@contextmanager
def broker(config: Path | None = None, environment: Mapping[str, str] | None = None) -> Iterator[Broker]:
    with Broker(config, environment) as running:
        yield running
