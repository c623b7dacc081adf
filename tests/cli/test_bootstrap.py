"""The set-up installs again only when its inputs changed, and says in one line what went wrong."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "libs" / "cli" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_stamp_is_current_until_one_of_its_inputs_changes(bootstrap: ModuleType, tmp_path: Path) -> None:
    lock, stamp = tmp_path / "lock", tmp_path / "stamp"
    lock.write_text("a==1")
    assert not bootstrap.Stamp(stamp, lock).current
    bootstrap.Stamp(stamp, lock).set()
    assert bootstrap.Stamp(stamp, lock).current
    lock.write_text("a==2")
    assert not bootstrap.Stamp(stamp, lock).current


def test_a_failed_download_ends_with_one_reason_and_what_the_program_said(bootstrap: ModuleType) -> None:
    command = [sys.executable, "-c", "print('no route to the index'); raise SystemExit(1)"]
    with pytest.raises(bootstrap.SetupFault, match="is the package index reachable") as caught:
        bootstrap.step("python packages", command, "is the package index reachable?")
    assert "no route to the index" in caught.value.output


def test_every_distribution_of_the_tree_is_installed_by_the_setup(bootstrap: ModuleType) -> None:
    names = {path.name for path in bootstrap.packages()}
    assert names == {"cli", "common", "gateway", "auth", "policy", "fhir-proxy", "audit", "fhir-store"}
