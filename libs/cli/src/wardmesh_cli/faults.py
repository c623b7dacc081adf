"""What can keep the mesh from running, each with its exit code and one clear line."""

from __future__ import annotations


class StartFault(Exception):
    """Ends the command with `code`; the text is for the terminal."""

    code = 69


class PortTakenFault(StartFault):
    code = 71


class ProcessFault(StartFault):
    """A process did not become ready, or ended too often; `log` holds its last lines."""

    def __init__(self, text: str, log: list[str]) -> None:
        super().__init__(text)
        self.log = log


class StateInUseFault(StartFault):
    code = 73


class NotRunningFault(StartFault):
    code = 3
