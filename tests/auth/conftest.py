"""Real PostgreSQL and NATS for the tests of auth, started once per run; a clinic and our client, new for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

import engines
from auth.smart_clinic import Clinic, clinic
from auth.smart_stage import smart_client
from wardmesh_auth.smart.client import SmartClient


@pytest.fixture(scope="session")
def postgres() -> Iterator[engines.Postgres]:
    with engines.postgres("auth") as engine:
        yield engine


@pytest.fixture(scope="session")
def nats() -> Iterator[engines.Nats]:
    with engines.nats() as engine:
        yield engine


@pytest.fixture
async def server() -> AsyncIterator[Clinic]:
    async with clinic() as ready:
        yield ready


@pytest.fixture
async def smart() -> AsyncIterator[SmartClient]:
    async with smart_client(seconds=1.0) as client:
        yield client
