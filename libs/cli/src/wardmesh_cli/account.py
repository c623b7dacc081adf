"""The unprivileged account that engines run under, and what that account can read."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TypedDict

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Spawn(TypedDict, total=False):
    """Keyword arguments for `subprocess.Popen` and asyncio's subprocess calls."""

    user: int
    group: int
    extra_groups: list[int]
    preexec_fn: Callable[[], None]
    start_new_session: bool


def dies_with_parent(parent: int, last_signal: signal.Signals) -> Callable[[], None]:
    """A function for the child, run after its change of uid because that change would clear the setting."""

    def ask_kernel() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(last_signal))
        if os.getppid() != parent:  # the parent died in between: nobody would ever signal us
            os._exit(1)

    return ask_kernel


def spawn_options(
    *, unprivileged: bool = False, last_signal: signal.Signals = signal.SIGKILL, own_session: bool = True
) -> Spawn:
    """How every child is started: bound to our life, and as `nobody` when we are root and the child is an engine."""
    options = Spawn(preexec_fn=dies_with_parent(os.getpid(), last_signal), start_new_session=own_session)
    if unprivileged and os.geteuid() == 0:
        account = pwd.getpwnam("nobody")
        options.update(user=account.pw_uid, group=account.pw_gid, extra_groups=[])
    return options


def give(path: Path) -> None:
    """Hand a directory tree over to the engines' account (nothing to do unless we are root)."""
    if os.geteuid() != 0:
        return
    account = pwd.getpwnam("nobody")
    for entry in [path, *path.rglob("*")]:
        os.chown(entry, account.pw_uid, account.pw_gid, follow_symlinks=False)


def reachable(path: Path) -> bool:
    """True when the engines' account can walk down to `path` (always, unless we are root)."""
    if os.geteuid() != 0:
        return True
    existing = path.resolve()
    while not existing.exists():
        existing = existing.parent
    return all(parent.stat().st_mode & 0o001 for parent in [existing, *existing.parents] if parent.is_dir())


def public_directory(name: str) -> Path:
    """A directory of ours that every account can walk into; refuses one that somebody else prepared."""
    place = Path("/var/tmp") / f"wardmesh-{os.geteuid()}"  # noqa: S108 - owner and mode are checked below
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o755)
    facts = place.lstat()
    if place.is_symlink() or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise PermissionError(f"{place} belongs to somebody else or is writable by others: remove it")
    inner = place / name
    inner.mkdir(mode=0o755, parents=True, exist_ok=True)
    return inner


def readable_copy(source: Path, name: str) -> Path:
    """`source` itself when the engines' account can read it, else a copy made once below /var/tmp."""
    if reachable(source):
        return source
    stamp = source.stat()
    copy = public_directory("engines") / f"{name}-{int(stamp.st_mtime)}-{stamp.st_size}" / source.name
    if not copy.exists():
        draft = copy.parent.with_suffix(f".{os.getpid()}")
        draft.mkdir(mode=0o755, parents=True)
        if source.is_dir():
            shutil.copytree(source, draft / source.name, symlinks=True)
        else:
            shutil.copy2(source, draft / source.name)
        try:
            draft.rename(copy.parent)
        except OSError:  # another start was quicker
            shutil.rmtree(draft)
    return copy
