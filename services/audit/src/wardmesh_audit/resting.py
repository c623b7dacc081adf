"""Files that others put in place while we run: whether they have changed, and rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

Marks = tuple[tuple[str, int, int, int], ...]


class RestingFiles:
    """Names, sizes and times of files; a file that is being written is left alone until it looks the same twice."""

    def __init__(self, files: Callable[[], Sequence[Path]]) -> None:
        self._files = files
        self._seen: Marks = ()
        self._taken: Marks = ()

    def marks(self) -> Marks:
        """Equal means unchanged. Raises OSError, and what the list of files raises."""
        stats = [(path.name, path.stat()) for path in self._files()]
        return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats)

    def take(self, marks: Marks) -> None:
        """These have been read."""
        self._seen = self._taken = marks

    def changed(self) -> bool:
        """True once when there are others than those taken, and they rest. Raises as `marks`."""
        before, self._seen = self._seen, self.marks()
        if self._seen == self._taken or self._seen != before:
            return False
        self._taken = self._seen
        return True
