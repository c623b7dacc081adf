"""HL7's own test cases for FHIR out of Maven Central: fetched once, held against their checksum, kept in the cache."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

import maven

VERSION = "1.4.19"
SHA256 = "995c68c455b9395bd48cd97e73bc84a263cef0636c12e12d5e7e0c751a76d97a"
FOLDER = PurePosixPath("org/hl7/fhir/testcases/r4/patch")


def patch_cases() -> Path:
    """The folder with the R4 patch cases: below WARDMESH_TEST_FHIR_CASES, or in a copy of our own."""
    named = os.environ.get("WARDMESH_TEST_FHIR_CASES", "")
    if named:
        return Path(named) / "r4" / "patch"
    found = maven.cache() / f"fhir-test-cases-{VERSION}"
    if not found.exists():
        with tempfile.TemporaryDirectory(dir=maven.cache()) as folder:
            _fetch(Path(folder), found)
    return found


def _fetch(folder: Path, target: Path) -> None:
    """Whole or not at all: another run may look for it at the same time."""
    artifact = f"org.hl7.fhir.testcases:fhir-test-cases:{VERSION}:jar"
    archive = maven.copied(artifact, folder, "NOT PROVEN by HL7's cases")
    with archive.open("rb") as jar:
        assert hashlib.file_digest(jar, "sha256").hexdigest() == SHA256, (
            "Maven brought another file than the pinned one"
        )
    unpacked = folder / "cases"
    unpacked.mkdir()
    with zipfile.ZipFile(archive) as jar:
        for name in jar.namelist():
            if PurePosixPath(name).parent == FOLDER and not name.endswith("/"):
                (unpacked / PurePosixPath(name).name).write_bytes(jar.read(name))
    if not target.exists():
        unpacked.rename(target)
