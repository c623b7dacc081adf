"""A store of its own for the comparisons: searches see the seed and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import postgres

sys.path.append(str(Path(__file__).parent))

from exchange import Side
from store_stage import new_process


@pytest.fixture
def store() -> Iterator[Side]:
    with postgres("differential") as engine:
        process = new_process(engine.url("differential"))
        migrated = process.command("migrate")
        assert migrated.returncode == 0, migrated.stderr.decode()
        process.start()
        side = Side(process.base)
        try:
            yield side
        finally:
            side.close()
            process.kill()
