"""Real engines for tests: NATS, PostgreSQL and Cerbos as direct children on free ports, gone when the block ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from wardmesh_cli import recipes
from wardmesh_cli.account import give, reachable, spawn_options
from wardmesh_cli.binaries import Binaries
from wardmesh_cli.ports import free_port

READY_SECONDS = 120.0
STOP_SECONDS = 30.0


@dataclass
class Engine:
    """One running engine; `kill`, `freeze`, `thaw` and `start` are for fault tests."""

    recipe: recipes.Recipe
    home: Path
    ready: Callable[[int], bool]
    stop_signal: signal.Signals = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None, "the engine is not running"
        return self.process.pid

    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    def start(self) -> None:
        options = spawn_options(unprivileged=True, last_signal=signal.SIGKILL)
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.recipe.command, env=self.recipe.environ, cwd=self.home, stdout=log, stderr=log, **options
            )
        limit = time.monotonic() + READY_SECONDS
        while not self.ready(self.process.pid):
            if self.process.poll() is not None or time.monotonic() > limit:
                self.kill()
                raise RuntimeError(f"{self.recipe.command[0]} did not start:\n{self.log()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self.process = None

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
            self.process = None

    def freeze(self) -> None:
        """Returns when every thread has stopped: until then one of them may still finish an answer."""
        os.kill(self.pid, signal.SIGSTOP)
        deadline = time.monotonic() + STOP_SECONDS
        while not all(_stopped(task) for task in Path(f"/proc/{self.pid}/task").iterdir()):
            assert time.monotonic() < deadline, "an engine did not stop"
            time.sleep(0.001)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


def _stopped(task: Path) -> bool:
    """A thread that has ended meanwhile answers nothing any more either."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return (task / "stat").read_text().rpartition(")")[2].split()[0] in ("T", "t", "Z", "X")
    return True


@dataclass
class Nats(Engine):
    port: int = 0
    http_port: int = 0

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def monitor(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"


@dataclass
class Postgres(Engine):
    port: int = 0
    databases: tuple[str, ...] = field(default=())

    def url(self, database: str = "", user: str = "postgres") -> str:
        """`postgresql://user@127.0.0.1:port/database`; the first database asked for when none is named."""
        name = database or (self.databases[0] if self.databases else "postgres")
        return f"postgresql://{user}@127.0.0.1:{self.port}/{name}"

    def create(self, database: str) -> str:
        """The address of one more empty database."""
        _create(self.port, (database,))
        return self.url(database)


@dataclass
class Cerbos(Engine):
    target: str = ""  # for grpc.aio: unix:/...
    http_url: str = ""


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


@contextlib.contextmanager
def _home(name: str) -> Iterator[Path]:
    """A short path (unix sockets allow 107 bytes) that the engines' account may use."""
    home = Path(tempfile.mkdtemp(prefix=f"wm-{name}-", dir="/tmp"))
    home.chmod(0o755)
    try:
        give(home)
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def nats(config_text: str | None = None, environ: Mapping[str, str] | None = None) -> Iterator[Nats]:
    """nats-server with JetStream, or with your configuration (`environ`: its `$VARIABLES`; port and store are set)."""
    with _home("nats") as home:
        config = home / "nats.conf"
        config.write_text(config_text if config_text is not None else recipes.PLAIN_NATS)
        config.chmod(0o644)
        (home / "store").mkdir()
        give(home)
        port = free_port()
        http_port = free_port(taken={port})
        recipe = recipes.nats(Binaries(), config, port, http_port, home / "store")
        recipe.environ.update(environ or {})
        health = f"http://127.0.0.1:{http_port}/healthz"
        engine = Nats(recipe, home, lambda _pid: answers(health), port=port, http_port=http_port)
        try:
            engine.start()
            yield engine
        finally:
            engine.stop()


def _create(port: int, databases: tuple[str, ...]) -> None:
    """In a thread of its own, so that the block may also be opened inside a running event loop."""

    async def every() -> None:
        for database in databases:
            await recipes.ensure_database(port, database)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, every()).result(READY_SECONDS)


@contextlib.contextmanager
def postgres(*databases: str, durable: bool = False) -> Iterator[Postgres]:
    """PostgreSQL 18 with these empty databases; connect as `postgres`, no password."""
    binaries = Binaries()
    with _home("pg") as home:
        data = home / "data"
        data.mkdir(mode=0o700)
        give(home)
        recipes.prepare_postgres(binaries, data, durable=durable)
        port = free_port()
        recipe = recipes.postgres(binaries, data, port, durable=durable)
        engine = Postgres(
            recipe,
            home,
            lambda pid: recipes.postgres_ready(data, pid),
            stop_signal=signal.SIGINT,
            port=port,
            databases=databases,
        )
        try:
            engine.start()
            _create(port, databases)
            yield engine
        finally:
            engine.stop()


@contextlib.contextmanager
def cerbos(policy_dir: Path | str, *, watch: bool = False) -> Iterator[Cerbos]:
    """Cerbos over these policies (read in place where its account can read them, else from a copy)."""
    with _home("pdp") as home:
        policies = Path(policy_dir).resolve()
        if not reachable(policies):
            policies = Path(shutil.copytree(policies, home / "policies"))
        socket, http_port = home / "pdp.sock", free_port()
        recipe = recipes.cerbos(Binaries(), home, policies, f"unix:{socket}", http_port, watch=watch)
        url = f"http://127.0.0.1:{http_port}"
        engine = Cerbos(
            recipe, home, lambda _pid: answers(f"{url}/_cerbos/health"), target=f"unix:{socket}", http_url=url
        )
        try:
            engine.start()
            yield engine
        finally:
            engine.stop()
