"""The rules of the house that no linter knows: sizes, names, hosts, paths, the lock and the permissions file."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*ROOT.glob("libs/*/src/**/*.py"), *ROOT.glob("services/*/src/**/*.py")])
CODE = [path for path in SOURCES if "versions" not in path.parts]
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_source_file_is_longer_than_300_lines() -> None:
    assert CODE, "no source files found"
    long = {relative(p): n for p in CODE if (n := len(p.read_text().splitlines())) > MAX_FILE_LINES}
    assert not long


def test_no_function_is_longer_than_40_lines() -> None:
    long: list[str] = []
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.body[0].lineno + 1
                if length > MAX_FUNCTION_LINES:
                    long.append(f"{relative(path)}:{node.lineno} {node.name} {length}")
    assert not long


def test_every_module_says_what_it_is_for() -> None:
    silent = [relative(p) for p in CODE if p.stat().st_size and ast.get_docstring(ast.parse(p.read_text())) is None]
    assert not silent


def test_no_module_hides_behind_an_empty_name() -> None:
    empty = {"utils", "util", "helpers", "helper", "manager", "core", "base", "impl", "misc", "common"}
    assert not [relative(p) for p in CODE if p.stem in empty]


@pytest.mark.requirement("DP-101")
def test_no_tracked_file_names_a_package_registry() -> None:
    # Assembled here, so that this file does not name them either.
    hosts = [
        ".".join(parts)
        for parts in (
            ("registry", "npmjs", "org"),
            ("files", "pythonhosted", "org"),
            ("pypi", "org"),
            ("proxy", "golang", "org"),
            ("repo1", "maven", "org"),
            ("repo", "maven", "apache", "org"),
            ("deb", "debian", "org"),
            ("docker", "io"),
            ("ghcr", "io"),
            ("quay", "io"),
            ("crates", "io"),
        )
    ]
    found: list[str] = []
    for path in tracked():
        text = path.read_bytes().decode("utf-8", "ignore")
        found += [f"{relative(path)}: {host}" for host in hosts if host in text]
    assert not found
    ignored = subprocess.run(["git", "check-ignore", "uv.lock"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ignored.stdout.strip() == "uv.lock"


def test_no_tracked_file_holds_a_path_of_one_machine() -> None:
    # Assembled, for the same reason.
    places = ["/".join(("", "work", "main")), "/".join(("", "work", "shared")), "/".join(("", "root", ""))]
    found = [
        f"{relative(path)}: {place}"
        for path in tracked()
        for place in places
        if place in path.read_bytes().decode("utf-8", "ignore")
    ]
    assert not found


@pytest.mark.requirement("DP-102")
def test_the_lock_pins_and_hashes_everything_and_names_no_url() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    entries = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert len(entries) > 50
    loose = [e.split("\n")[0] for e in entries if "==" not in e.split("\n")[0] or "--hash=sha256:" not in e]
    assert not loose


@pytest.mark.requirement("DP-103")
def test_npm_locks_have_hashes_and_no_addresses() -> None:
    locks = [path for path in tracked() if path.name == "package-lock.json"]
    assert locks
    for path in locks:
        text = path.read_text()
        assert '"resolved"' not in text, relative(path)
        assert '"integrity"' in text, relative(path)


@pytest.mark.requirement("AR-9")
def test_services_never_import_one_another() -> None:
    packages = {p.name for p in [*ROOT.glob("libs/*/src/*"), *ROOT.glob("services/*/src/*")] if p.is_dir()}
    packages = {name for name in packages if name.startswith("wardmesh_") and not name.endswith(".egg-info")}
    wrong: list[str] = []
    for path in SOURCES:
        own = next(part for part in path.parts if part in packages)
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                if top in packages and top not in (own, "wardmesh_common"):
                    wrong.append(f"{relative(path)} imports {name}")
    assert len(packages) == 8
    assert not wrong
