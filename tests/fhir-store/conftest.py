"""One PostgreSQL for the whole directory, a database in it and a store process for whoever asks.

`WARDMESH_TEST_FHIR_BASE` names another base for tests that take `fhir`.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import Postgres, postgres

sys.path.append(str(Path(__file__).parent))

from store_stage import Fhir, StoreProcess, running


@pytest.fixture(scope="session")
def engine() -> Iterator[Postgres]:
    """Whoever ends its database has one of its own."""
    with postgres("store") as found:
        yield found


@pytest.fixture(scope="session")
def process(engine: Postgres) -> Iterator[StoreProcess]:
    with running(engine.url("store")) as made:
        yield made


@pytest.fixture(scope="session")
def fhir(request: pytest.FixtureRequest) -> Iterator[Fhir]:
    base = os.environ.get("WARDMESH_TEST_FHIR_BASE") or request.getfixturevalue("process").base
    client = Fhir(base)
    yield client
    client.http.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the jobs of a module read and write."""
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def store_settings(root: Path) -> dict[str, str]:
    """Of the module's own store: with `$export`. Modules that need others have a fixture of this name."""
    return {"WARDMESH_FILE_ROOTS": json.dumps([str(root)]), "WARDMESH_BULK_URL": root.as_uri()}


@pytest.fixture(scope="module")
def store_commands() -> tuple[tuple[str, ...], ...]:
    """What is done to the module's database before its store starts."""
    return ()


@pytest.fixture(scope="module")
def database_url(engine: Postgres) -> str:
    """Of a database that only one module uses."""
    return engine.create(f"d{uuid.uuid4().hex}")


@pytest.fixture(scope="module")
def store(
    database_url: str, store_settings: dict[str, str], store_commands: tuple[tuple[str, ...], ...]
) -> Iterator[StoreProcess]:
    """A store that one module has for itself."""
    with running(database_url, store_settings, *store_commands) as made:
        yield made


@pytest.fixture
def mark() -> str:
    """A word that no other test uses: searches see only their own resources."""
    return "m" + uuid.uuid4().hex[:12]
