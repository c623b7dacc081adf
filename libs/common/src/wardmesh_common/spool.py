"""The second sink: records of calls that policy lets through without the stream, fsynced here, delivered later."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

SPOOL_BYTES = 64 * 1024 * 1024
_SUFFIX = ".spool"


class SpoolFull(OSError):
    """The spool holds as much as it may."""


class Spool:
    """One append-only file of one process: one leaf per line, its bytes as they will be sent later."""

    def __init__(self, directory: Path, name: str, *, max_bytes: int = SPOOL_BYTES) -> None:
        self._path = directory / f"{name}{_SUFFIX}"
        self._max_bytes = max_bytes
        self._file: int | None = None
        self._size = 0

    def keep(self, leaves: Sequence[bytes]) -> None:
        """Returns when the leaves are on disk. Raises OSError when they are not: then none of them counts."""
        data = b"".join(leaf + b"\n" for leaf in leaves)
        if self._size + len(data) > self._max_bytes:
            raise SpoolFull
        if self._file is None:
            self._file = _open(self._path)
        try:
            written = os.write(self._file, data)
            if written != len(data):
                raise SpoolFull
            os.fsync(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)  # half a line must not look like a record
            raise
        self._size += len(data)

    def clear(self) -> None:
        """Everything is delivered."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file, self._size = None, 0


class Left:
    """What a process that is gone has left behind; nobody else works on it while we hold its lock."""

    def __init__(self, path: Path, file: int) -> None:
        self._path = path
        self._file = file
        self.name = path.name.removesuffix(_SUFFIX)

    def leaves(self) -> list[bytes]:
        """Whole lines only: what was not ended was never answered."""
        return [line for line in self._path.read_bytes().split(b"\n")[:-1] if line]

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        os.close(self._file)


def left_behind(directory: Path) -> Iterator[Left]:
    """Spools whose process holds no lock any more."""
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        if _is_at(path, file):
            yield Left(path, file)
        else:
            os.close(file)  # somebody else has delivered it meanwhile


def _open(path: Path) -> int:
    """A new file that is ours, and that is there after a power loss as well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        if _is_at(path, file):
            break
        # Before we held the lock, a process that looked for what was left behind took the file away as empty.
        os.close(file)
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return file


def _is_at(path: Path, file: int) -> bool:
    """A locked file that is not in the folder any more would take records with it."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
