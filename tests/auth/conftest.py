"""Real PostgreSQL and NATS for the tests of auth, started once per run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import engines


@pytest.fixture(scope="session")
def postgres() -> Iterator[engines.Postgres]:
    with engines.postgres("auth") as engine:
        yield engine


@pytest.fixture(scope="session")
def nats() -> Iterator[engines.Nats]:
    with engines.nats() as engine:
        yield engine
