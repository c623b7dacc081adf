"""Files out of Maven Central for tests: fetched by Maven, kept in the user's cache."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_FETCH_SECONDS = 240


def cache() -> Path:
    """The folder where tests keep what they fetched, made when it is missing."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wardmesh"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def copied(artifact: str, folder: Path, missing: str) -> Path:
    """`group:name:version:type` as a file in the folder. Skips the test, saying `missing`, where it cannot be had."""
    if not shutil.which("mvn"):
        pytest.skip(f"{missing}: Maven is not on this machine")
    _, name, version, ending = artifact.split(":")
    command = ["mvn", "-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"]
    command += [f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"]
    try:
        subprocess.run(command, check=True, timeout=_FETCH_SECONDS, capture_output=True)
    except (subprocess.SubprocessError, OSError) as error:
        pytest.skip(f"{missing}: Maven could not fetch it: {type(error).__name__}")
    return folder / f"{name}-{version}.{ending}"
