"""Files of rules that are put in place while detection runs: what cannot be read changes nothing and is said once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from wardmesh_audit.rule_folder import RuleFolder
from wardmesh_audit.rules import LARGEST, SHIPPED, BadRules


def leads_nowhere(path: Path) -> None:
    path.symlink_to(path.with_suffix(".gone"))


def never_ends(path: Path) -> None:
    os.mkfifo(path)


def too_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("place", [leads_nowhere, never_ends, too_large, a_folder])
def test_what_is_no_readable_file_is_refused_once(tmp_path: Path, place: Callable[[Path], None]) -> None:
    rules = RuleFolder(tmp_path)
    rules.load()
    before = rules.reading
    place(tmp_path / "denied_burst.json")
    rules.look()  # it does not rest yet
    with pytest.raises(BadRules, match=r"denied_burst\.json"):
        rules.look()
    for _ in range(3):
        rules.look()
    assert rules.reading is before


def test_a_link_is_followed_and_its_new_target_is_taken_over(tmp_path: Path) -> None:
    """As mounted configuration is changed: one link to a directory is replaced."""
    whole = json.loads((SHIPPED / "denied_burst.json").read_text())
    for name, threshold in (("one", 30), ("two", 40)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "denied_burst.json").write_text(json.dumps(whole | {"threshold": threshold}))
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "denied_burst.json").symlink_to(tmp_path / "now" / "denied_burst.json")
    (tmp_path / "now").symlink_to("one")
    rules = RuleFolder(folder)
    rules.load()
    before = rules.reading.digest
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "now")
    rules.look()
    rules.look()
    assert rules.reading.digest != before
