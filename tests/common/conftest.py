"""One real broker for all bus tests of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from common.broker import broker


@pytest.fixture(scope="session")
def nats_url() -> Iterator[str]:
    with broker() as running:
        yield running.url


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
