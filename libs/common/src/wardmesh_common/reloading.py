"""While DEBUG is on a service begins anew when its own code changes (FG-31): in the same process, on the same ports."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path

POLL_SECONDS = 0.5
_WATCHED = frozenset({".py", ".json", ".html", ".css", ".js"})

log = logging.getLogger("wardmesh.reloading")

Seen = dict[Path, tuple[int, int]]


def folders_of(service: str) -> tuple[Path, ...]:
    """Where the code of this service and of what all share lies."""
    names = ("wardmesh_common", f"wardmesh_{service.replace('-', '_')}")
    specs = (importlib.util.find_spec(name) for name in names)
    return tuple(Path(spec.origin).parent for spec in specs if spec is not None and spec.origin)


class Code:
    """The files of some folders as they are when this is made: before a service starts, so that no change is missed."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(folders)
        self._seen = _look(self._folders)

    async def changed(self) -> None:
        """Returns when something has changed that Python can read; a half-written file is waited for."""
        while True:
            now = await asyncio.to_thread(_look, self._folders)
            before, self._seen = self._seen, now
            if now != before and all(_readable(path) for path in now if now[path] != before.get(path)):
                return
            await asyncio.sleep(POLL_SECONDS)


def begin_anew() -> None:
    """Replaces this process by itself. Does not return."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - what already runs, once more


def _look(folders: tuple[Path, ...]) -> Seen:
    seen: Seen = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.suffix in _WATCHED and path.is_file():
                state = path.stat()
                seen[path] = (state.st_mtime_ns, state.st_size)
    return seen


def _readable(path: Path) -> bool:
    if path.suffix != ".py":
        return True
    try:
        compile(path.read_bytes(), path.name, "exec")
    except (SyntaxError, ValueError, OSError):
        log.warning("%s cannot be read as Python yet: nothing is started again", path.name)
        return False
    return True
