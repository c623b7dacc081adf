"""Who used how much CPU: groups of processes with everything they started, and the machine as a whole."""

from __future__ import annotations

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")

Spent = tuple[float, float]  # user and system seconds


def of_processes(pids: list[int]) -> Spent:
    """User and system time of these processes so far; those that are gone count nothing."""
    user = system = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        user += int(fields[11])
        system += int(fields[12])
    return user / TICKS, system / TICKS


def of_machine() -> tuple[float, float]:
    """Busy and total seconds of all processors so far; time stolen by other machines counts as busy."""
    values = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle = values[3] + values[4]
    return (sum(values) - idle) / TICKS, sum(values) / TICKS


def tree(pids: list[int]) -> list[int]:
    """These processes and everything below them: PostgreSQL serves each connection in a child."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    queue = list(pids)
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue += children.get(pid, [])
    return found


class Account:
    """CPU of named groups of processes between two looks."""

    def __init__(self, groups: dict[str, list[int]]) -> None:
        # The supervisor's children are counted under their own names.
        self._pids = {name: pids if name == "wardmesh" else tree(pids) for name, pids in groups.items()}
        self._before = self._look()
        self._machine = of_machine()
        # What this run itself costs beside the groups: the load generator.
        self._own = sum(os.times()[:2])

    def _look(self) -> dict[str, Spent]:
        return {name: of_processes(pids) for name, pids in self._pids.items()}

    def spent(self) -> dict[str, Spent]:
        """Per group since the account was opened."""
        now = self._look()
        return {name: (now[name][0] - user, now[name][1] - system) for name, (user, system) in self._before.items()}

    def others(self) -> float:
        """Share of the machine that went to processes of somebody else."""
        busy, total = (now - then for now, then in zip(of_machine(), self._machine, strict=True))
        ours = sum(user + system for user, system in self.spent().values()) + sum(os.times()[:2]) - self._own
        return max(0.0, busy - ours) / total if total else 0.0
