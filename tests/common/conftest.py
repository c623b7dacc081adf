"""One real broker for all bus tests of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engines import nats


@pytest.fixture(scope="session")
def nats_url() -> Iterator[str]:
    with nats() as running:
        yield running.url


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
