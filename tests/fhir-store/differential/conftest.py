"""A store of its own for the comparisons: searches see the seed and nothing else."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import Postgres

sys.path.append(str(Path(__file__).parent))

from exchange import Side
from store_stage import running


@pytest.fixture
def store(engine: Postgres) -> Iterator[Side]:
    with running(engine.create(f"d{uuid.uuid4().hex}")) as process:
        side = Side(process.base)
        try:
            yield side
        finally:
            side.close()
