"""What is said of single tests in tests/lanes.py is said of tests that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from lanes import ALONE, TOGETHER

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("begin", [*ALONE, *TOGETHER])
def test_every_entry_is_the_begin_of_a_test_s_id(begin: str) -> None:
    path, _, function = begin.partition("::")
    assert (ROOT / path).exists()
    assert not function or f"def {function}" in (ROOT / path).read_text()
