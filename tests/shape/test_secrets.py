"""X-35 and X-12: no secret is kept in the repository, and everything that runs comes from a lock with hashes."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 4 * 1024 * 1024

SHAPES = {
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{64,}",
    "AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{50,}",
    "Slack token": r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    "API key": r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}|\bAIza[0-9A-Za-z_-]{35}\b",
    "signed token": r"\beyJ[A-Za-z0-9_-]{15,}\.eyJ[A-Za-z0-9_-]{15,}\.[A-Za-z0-9_-]{20,}",
    "NATS seed": r"\bS[UAOCN][A-Z2-7]{56}\b",
    "private JWK": r"\"d\"\s*:\s*\"[A-Za-z0-9_-]{40,}\"",
    "password in an address": r"[a-z]+://[^/\s:@{}$\"']+:[^/\s:@{}$\"']{6,}@(?!127\.0\.0\.1|localhost)",
    "assigned secret": r"(?i)\b(?:secret|password|passwd|api_?key|token)\b\s*[:=]\s*[\"']?[A-Za-z0-9+/_-]{32,}[\"']?",
}
# What looks like one and is none, with the reason.
HARMLESS = {
    "AKIAIOSFODNN7EXAMPLE": "AWS's own example",
    "AKIATESTTESTTESTTEST": "made up, in the tests of the store's object signatures",
}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=60).stdout
    return [ROOT / name.decode() for name in listed.split(b"\0") if name]


def secrets_in(text: str) -> list[str]:
    """Kinds of secrets that stand in a text, never the secrets."""
    return [
        kind
        for kind, shape in SHAPES.items()
        for found in re.finditer(shape, text)
        if not any(word in found[0] for word in HARMLESS)
    ]


@pytest.mark.requirement("X-35")
def test_no_tracked_file_holds_a_secret() -> None:
    found: dict[str, list[str]] = {}
    files = [path for path in tracked() if path.is_file() and path.stat().st_size <= LARGEST]
    assert len(files) > 500
    for path in files:
        kinds = secrets_in(path.read_bytes().decode("utf-8", "replace"))
        if kinds and path != Path(__file__):
            found[str(path.relative_to(ROOT))] = kinds
    assert not found


@pytest.mark.requirement("X-35")
def test_a_secret_in_a_file_would_be_noticed() -> None:
    key = "-----BEGIN " + "PRIVATE KEY-----\n" + "A" * 64
    samples = [key, "AKIA" + "B" * 16, "ghp_" + "c" * 36, "SU" + "A" * 56, "SECRET=" + "d" * 40]
    samples.append("postgresql://admin:" + "hunter2hunter2@db.example/x")
    for sample in samples:
        assert secrets_in(f"x = '{sample}'"), sample[:6]
    assert secrets_in("token: str = read(environ)") == []


@pytest.mark.requirement("X-35")
def test_files_that_hold_secrets_are_never_tracked() -> None:
    names = {path.name for path in tracked()}
    assert not [name for name in names if name == ".env" or name.endswith((".pem", ".key", ".seed", ".p12"))]


def declared() -> list[tuple[str, str]]:
    """(project, requirement) of every package that is named in a pyproject.toml of ours."""
    rows: list[tuple[str, str]] = []
    for path in [ROOT / "pyproject.toml", *ROOT.glob("services/*/pyproject.toml"), *ROOT.glob("libs/*/pyproject.toml")]:
        project = tomllib.loads(path.read_text())
        named = [*project.get("project", {}).get("dependencies", [])]
        for group in project.get("dependency-groups", {}).values():
            named += [each for each in group if isinstance(each, str)]
        rows += [(path.parent.name, each) for each in named if not each.startswith("wardmesh")]
    return rows


@pytest.mark.requirement("X-12")
def test_every_dependency_has_an_upper_bound_and_stands_in_the_lock_with_hashes() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    pinned = {name.lower() for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE)}
    blocks = re.split(r"\n(?=[A-Za-z0-9])", lock)
    assert all("--hash=sha256:" in block for block in blocks if re.match(r"[A-Za-z0-9._-]+==", block))
    rows = declared()
    assert any(each.startswith("mcp") and "<" in each for _, each in rows)
    for project, each in rows:
        name = re.match(r"[A-Za-z0-9._-]+", each)
        assert name is not None
        assert "<" in each or "==" in each, f"{project}: {name[0]} has no upper bound"
        assert name[0].lower().replace("_", "-") in pinned, f"{project}: {name[0]} is not in the lock"
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert all("integrity" in entry for name, entry in packages.items() if name and not entry.get("link"))


@pytest.mark.requirement("X-12")
def test_continuous_integration_starts_the_product_from_the_lock() -> None:
    run = (ROOT / ".ci" / "run").read_text()
    assert [line.split()[2] for line in run.splitlines() if line.startswith("make ")] == ["setup", "check", "test"]
    bootstrap = (ROOT / "libs" / "cli" / "bootstrap.py").read_text()
    assert '"--require-hashes"' in bootstrap and "requirements.lock" in bootstrap and '"ci"' in bootstrap
    assert "setup:" in (makefile := (ROOT / "Makefile").read_text()) and "libs/cli/bootstrap.py" in makefile
