"""How `make test` shares the tests out among its processes: what belongs together, and what must be alone."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

# Taken by one process as a whole and first: one mesh serves them all, and they last longest.
TOGETHER = ("tests/mesh/",)
# Compare rates, or need a processor at a moment they choose: they begin when every other process has ended.
ALONE = ("tests/audit/test_cost.py", "tests/audit/test_verify_speed.py")
_LAST = "alone"


def place(nodeid: str) -> int:
    """Sorts the tests of a run, with or without processes beside one another."""
    if nodeid.startswith(TOGETHER):
        return 0
    return 2 if nodeid.startswith(ALONE) else 1


class Lanes(LoadScopeScheduling):
    """Each process takes the next file when it is done with one; the last one left takes what must be alone."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(ALONE):
            return _LAST
        whole = next((folder for folder in TOGETHER if nodeid.startswith(folder)), "")
        return whole or nodeid.partition("::")[0]

    def _assign_work_unit(self, node: WorkerController) -> None:
        if next(iter(self.workqueue)) != _LAST or self.nodes == [node]:
            super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        others = [other for other in self.nodes if other is not node]
        if list(self.workqueue) != [_LAST] or not others:
            super()._reschedule(node)
        elif self._pending_of(self.assigned_work[node]) <= 2 and not all(other.shutting_down for other in others):
            node.shutdown()  # another process goes on

    def remove_node(self, node: WorkerController) -> str | None:
        crashed = super().remove_node(node)
        for left in self.nodes:
            self._reschedule(left)
        return crashed
