"""Real Cerbos and NATS for the tests of policy, started once per run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import engines
from policy.pdp_stage import POLICIES


@pytest.fixture(scope="session")
def pdp() -> Iterator[engines.Cerbos]:
    with engines.cerbos(POLICIES) as engine:
        yield engine


@pytest.fixture(scope="session")
def nats() -> Iterator[engines.Nats]:
    with engines.nats() as engine:
        yield engine
