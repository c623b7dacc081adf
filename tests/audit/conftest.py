"""One NATS and one PostgreSQL for the whole directory; every test gets a database and streams of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engines import Nats, Postgres, nats, postgres


@pytest.fixture(scope="session")
def broker() -> Iterator[Nats]:
    with nats() as engine:
        yield engine


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    with postgres(durable=True) as engine:
        yield engine
