"""The manifest of requirements and the marks on the tests agree in both directions."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def manifest() -> set[str]:
    return set(re.findall(r"^\| ([A-Z]+-\d+) \|", (ROOT / "docs" / "requirements.md").read_text(), re.MULTILINE))


def marked() -> dict[str, set[str]]:
    """Requirement id -> test files that name it in a mark."""
    found: dict[str, set[str]] = {}
    for path in ROOT.glob("tests/**/test_*.py"):
        for call in re.findall(r"mark\.requirement\(([^)]*)\)", path.read_text()):
            for name in re.findall(r"[\"']([A-Z]+-\d+)[\"']", call):
                found.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    return found


def test_every_marked_requirement_is_in_the_manifest() -> None:
    unknown = {name: files for name, files in marked().items() if name not in manifest()}
    assert not unknown


def test_the_manifest_is_complete_and_without_doubles() -> None:
    ids = re.findall(r"^\| ([A-Z]+-\d+) \|", (ROOT / "docs" / "requirements.md").read_text(), re.MULTILINE)
    assert len(ids) == len(set(ids))
    counts = {"AR": 10, "NB": 17, "FG": 39, "X": 45, "PX": 13, "ST": 74, "SM": 14, "SH": 26, "IB": 17, "HL": 21}
    for prefix, count in counts.items():
        assert sum(1 for name in ids if name.rsplit("-", 1)[0] == prefix) == count, prefix
