"""Tile paths and partial tiles as tlog-tiles wants them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from wardmesh_audit.tiles import Tile, bundle, entries_path, full_tiles_between, number_path, tiles_of


@pytest.mark.requirement("AU-403")
def test_a_log_of_70_000_has_the_tiles_of_the_specification() -> None:
    found = Counter((tile.level, tile.width) for tile in tiles_of(70_000))
    assert found == {(0, 256): 273, (0, 112): 1, (1, 256): 1, (1, 17): 1, (2, 1): 1}


@pytest.mark.requirement("AU-403")
@pytest.mark.parametrize(
    ("number", "path"), [(0, "000"), (67, "067"), (1000, "x001/000"), (1234067, "x001/x234/067"), (999999, "x999/999")]
)
def test_numbers_are_grouped_by_three_digits(number: int, path: str) -> None:
    assert number_path(number) == path


@pytest.mark.requirement("AU-403")
def test_partial_tiles_name_their_width() -> None:
    assert Tile(0, 273, 112).path == "tile/0/273.p/112"
    assert Tile(1, 1, 17).path == "tile/1/001.p/17"
    assert Tile(1, 0).path == "tile/1/000"
    assert entries_path(273, 112) == "tile/entries/273.p/112"


def test_growing_in_steps_stores_the_same_full_tiles_as_growing_at_once() -> None:
    steps = [0, 1, 255, 256, 300, 65_535, 65_536, 70_000]
    grown = [tile for old, new in pairwise(steps) for tile in full_tiles_between(old, new)]
    assert sorted(grown, key=lambda t: (t.level, t.number)) == [t for t in tiles_of(70_000) if t.width == 256]


def test_an_entry_bundle_prefixes_each_entry_with_its_length() -> None:
    assert bundle([b"a", b"bc"]) == b"\x00\x01a\x00\x02bc"
