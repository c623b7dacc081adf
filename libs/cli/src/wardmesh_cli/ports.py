"""Free loopback ports below the ephemeral range, so that no outgoing connection ever collides with a listener."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import socket
import time
from pathlib import Path
from typing import TextIO

from wardmesh_cli.account import public_directory

LOWEST = 20_000
EPHEMERAL = 32_768
_ATTEMPTS = 500
_PROMISE_SECONDS = 60.0


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """True when a listener could start on this port now."""
    with socket.socket() as probe:
        # Without this a port in TIME_WAIT looks taken; a real listener still refuses the bind.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
    return True


def free_port(preferred: int = 0, taken: frozenset[int] | set[int] = frozenset()) -> int:
    """The preferred port when it is free, else a random free one below 32768 that nobody else was given just now."""
    if preferred and preferred not in taken and is_free(preferred):
        return preferred
    left = sorted(set(range(LOWEST, EPHEMERAL)) - taken)
    for port in random.SystemRandom().choices(left, k=_ATTEMPTS) if left else []:
        if is_free(port) and _promise(port):
            return port
    raise OSError(errno.EADDRINUSE, f"no free port between {LOWEST} and {EPHEMERAL}")


def reserve(port: int) -> TextIO | None:
    """Keeps the port from everyone who asks here until the file is closed; None when somebody else keeps it."""
    held = _note(port).open("a")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        return None
    return held


def _promise(port: int) -> bool:
    """True for the first who asks within a minute: between our look and a child's bind others look too."""
    held = reserve(port)
    if held is None:
        return False
    with held:
        told = os.fstat(held.fileno())
        if told.st_size and time.time() - told.st_mtime < _PROMISE_SECONDS:
            return False
        held.truncate(0)
        held.write("given")
    return True


def _note(port: int) -> Path:
    return public_directory("ports") / str(port)
