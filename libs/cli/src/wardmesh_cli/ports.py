"""Free loopback ports below the ephemeral range, so that no outgoing connection ever collides with a listener."""

from __future__ import annotations

import errno
import random
import socket

LOWEST = 20_000
EPHEMERAL = 32_768
_ATTEMPTS = 500


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
    """The preferred port when it is free, else a random free one below 32768."""
    if preferred and preferred not in taken and is_free(preferred):
        return preferred
    draw = random.SystemRandom()
    for _ in range(_ATTEMPTS):
        port = draw.randrange(LOWEST, EPHEMERAL)
        if port not in taken and is_free(port):
            return port
    raise OSError(errno.EADDRINUSE, f"no free port between {LOWEST} and {EPHEMERAL}")
