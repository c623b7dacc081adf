"""One NATS and one PostgreSQL for the whole directory; every test gets a database and streams of its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import Nats, Postgres, nats, postgres

ORACLE = Path(__file__).parent / "oracle"


@pytest.fixture(scope="session")
def broker() -> Iterator[Nats]:
    with nats() as engine:
        yield engine


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with postgres(durable=True) as engine:
        yield engine


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program, built once; its only dependency is pinned by go.sum. Only a module out of reach is excused."""
    if shutil.which("go") is None:
        pytest.skip("NOT PROVEN: there is no Go compiler here")
    target = tmp_path_factory.mktemp("oracle") / "oracle"
    command = ["go", "build", "-o", str(target), "."]
    done = subprocess.run(command, cwd=ORACLE, capture_output=True, text=True, timeout=110, check=False)
    if "golang.org/x/mod@" in done.stderr:
        pytest.skip(f"NOT PROVEN: golang.org/x/mod cannot be had here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    return target
