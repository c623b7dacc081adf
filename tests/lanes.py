"""How `make test` deals the tests out among its processes: what runs alone, and what stays together."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

# Begin of node ids. They hold an amount of time, or of processor, against a limit: one process runs them first, while
# the others wait.
ALONE = (
    "tests/audit/test_cost.py",
    "tests/audit/test_recorder.py::test_a_frozen_broker_ends_calls_in_time",
    "tests/audit/test_report_speed.py",
    "tests/audit/test_verify_speed.py",
    "tests/auth/test_agents.py::test_a_database_that_hangs_delays_one_call",
    "tests/auth/test_replicas.py::test_a_sign_in_survives_the_replica_that_began_it",
    "tests/auth/test_sessions.py::test_a_frozen_database",
    "tests/auth/test_sessions.py::test_a_revocation_reaches_the_other_replica_within_a_second",
    "tests/auth/test_smart_answers.py::test_a_slow_an_endless_and_a_garbled_answer",
    "tests/common/test_broker_faults.py",
    "tests/common/test_deadline.py",
    "tests/common/test_journey.py",
    "tests/fhir-proxy/test_rates.py",
    "tests/policy/test_faults.py",
    "tests/policy/test_station.py::test_nothing_is_performed_while_cerbos_is_away",
    "tests/policy/test_versions.py",
)
# Each starts a mesh, or the like: one process runs them all, so that never two meshes share a machine.
TOGETHER = ("tests/conformance/", "tests/cli/test_up.py", "tests/mesh/")
FIRST, SECOND = "alone", "together"


def place(nodeid: str) -> int:
    """Where a test stands when several processes share a run."""
    if nodeid.startswith(ALONE):
        return 0
    if nodeid.startswith(TOGETHER):
        return 1 + next(place for place, begin in enumerate(TOGETHER) if nodeid.startswith(begin))
    return 1 + len(TOGETHER)


class Lanes(LoadScopeScheduling):
    """A process that has nearly nothing left takes the next file; what is alone or together counts as one file."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(ALONE):
            return FIRST
        return SECOND if nodeid.startswith(TOGETHER) else nodeid.partition("::")[0]

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        super().mark_test_complete(node, item_index, duration)
        for waiting in self.nodes:
            self._reschedule(waiting)

    def _reschedule(self, node: WorkerController) -> None:
        if self._must_wait(node):
            return
        super()._reschedule(node)
        # A process begins a test when it knows the next one: a single one would lie there.
        if self._pending_of(self.assigned_work[node]) == 1:
            super()._reschedule(node)

    def _assign_work_unit(self, node: WorkerController) -> None:
        if not self._must_wait(node):
            super()._assign_work_unit(node)

    def _must_wait(self, node: WorkerController) -> bool:
        return any(
            not all(work.get(FIRST, {}).values()) for other, work in self.assigned_work.items() if other is not node
        )
