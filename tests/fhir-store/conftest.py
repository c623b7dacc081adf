"""One PostgreSQL and one store process for the whole directory; `WARDMESH_TEST_FHIR_BASE` names another base."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import postgres

sys.path.append(str(Path(__file__).parent))

from store_stage import Fhir, StoreProcess, new_process


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    with postgres("store") as engine:
        yield engine.url("store")


@pytest.fixture(scope="session")
def process(database_url: str) -> Iterator[StoreProcess]:
    store = new_process(database_url)
    migrated = store.command("migrate")
    assert migrated.returncode == 0, migrated.stderr.decode()
    store.start()
    try:
        yield store
    finally:
        store.kill()


@pytest.fixture(scope="session")
def fhir(request: pytest.FixtureRequest) -> Iterator[Fhir]:
    base = os.environ.get("WARDMESH_TEST_FHIR_BASE") or request.getfixturevalue("process").base
    client = Fhir(base)
    yield client
    client.http.close()


@pytest.fixture
def mark() -> str:
    """A word that no other test uses: searches see only their own resources."""
    return "m" + uuid.uuid4().hex[:12]
