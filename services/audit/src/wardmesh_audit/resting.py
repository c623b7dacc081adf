"""Files that others put in place while we run: whether they have changed, and rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

Mark = tuple[str, int, int, int]
Marks = tuple[Mark, ...]


class RestingFiles:
    """Names, sizes and times of files; a file that is being written is left alone until it looks the same twice."""

    def __init__(self, files: Callable[[], Sequence[Path]], unreadable: Callable[[], Exception]) -> None:
        """`unreadable` makes what is raised where the files cannot be listed."""
        self._files = files
        self._unreadable = unreadable
        self._seen: Marks = ()
        self._taken: Marks = ()

    def marks(self) -> Marks:
        """Equal means unchanged. Raises what `unreadable` makes, and what the list of files raises."""
        try:
            return tuple(_mark(path) for path in self._files())
        except OSError:
            raise self._unreadable() from None

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


def _mark(path: Path) -> Mark:
    try:
        stat = path.stat()
    except OSError:  # a link that leads nowhere: whoever reads it says so, once
        return path.name, 0, 0, 0
    return path.name, stat.st_ino, stat.st_size, stat.st_mtime_ns
