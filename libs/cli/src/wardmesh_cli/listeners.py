"""Bound sockets that outlive the processes which accept from them, so that a restart refuses no connection."""

from __future__ import annotations

import socket

from wardmesh_cli.faults import PortTakenFault


class Listeners:
    """One socket per port, bound on first use; a process inherits it by number."""

    def __init__(self) -> None:
        self._held: dict[int, socket.socket] = {}

    def bind(self, *ports: int) -> dict[int, int]:
        """Port -> file descriptor. Raises PortTakenFault."""
        return {port: self._socket(port).fileno() for port in ports}

    def _socket(self, port: int) -> socket.socket:
        held = self._held.get(port)
        if held is None:
            held = socket.socket()
            try:
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                held.bind(("127.0.0.1", port))
            except OSError:
                held.close()
                raise PortTakenFault(f"port {port} is taken by another program") from None
            self._held[port] = held
        return held

    def close(self) -> None:
        """From here on only the processes themselves hold their ports."""
        for held in self._held.values():
            held.close()
        self._held = {}
