"""The version of the policy bundle: a hash over its files, in every decision and record."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

LOOK_SECONDS = 1.0


def version_of(folder: Path) -> str:
    """SHA-256 over names and contents of the policies, tests left out; 16 hex characters."""
    digest = hashlib.sha256()
    for path in files_of(folder):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.yaml") if not path.name.endswith("_test.yaml"))


def kinds_of(folder: Path) -> tuple[str, ...]:
    """The kinds that have a policy at all, from the `resource:` line of each file."""
    found: set[str] = set()
    for path in files_of(folder):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("  resource: "):
                found.add(line.removeprefix("  resource: ").strip())
    return tuple(sorted(found))


class Bundle:
    """The current version; `watch` notices an edited file within a second."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.version: str = version_of(folder)
        self.kinds: tuple[str, ...] = kinds_of(folder)
        self._seen = self._stamp()

    @property
    def summary(self) -> str:
        return f"{len(self.kinds)} kinds, version {self.version}"

    async def watch(self, changed: Callable[[str], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            stamp = self._stamp()
            if stamp == self._seen:
                continue
            self._seen = stamp
            version = version_of(self._folder)
            if version != self.version:
                self.version, self.kinds = version, kinds_of(self._folder)
                await changed(version)

    def _stamp(self) -> list[tuple[str, int]]:
        return [(path.name, path.stat().st_mtime_ns) for path in files_of(self._folder)]
