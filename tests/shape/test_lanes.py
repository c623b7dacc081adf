"""Tests that must be alone are, whoever is quicker; and what tests/lanes.py says, it says of tests that exist."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lanes import ALONE, TOGETHER, Lanes, place

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("begin", [*ALONE, *TOGETHER])
def test_every_entry_is_the_begin_of_a_test_s_id(begin: str) -> None:
    path, _, function = begin.partition("::")
    assert (ROOT / path).exists()
    assert not function or f"def {function}" in (ROOT / path).read_text()


class Process:
    """Stands for a worker: runs what it was sent in order, each test when it knows the next or that there is none."""

    def __init__(self) -> None:
        self.queue: list[int] = []
        self.shutting_down = False
        self.gateway = SimpleNamespace(id="")

    def send_runtest_some(self, indices: list[int]) -> None:
        self.queue.extend(indices)

    def shutdown(self) -> None:
        self.shutting_down = True

    def ready(self) -> bool:
        return len(self.queue) > (0 if self.shutting_down else 1)


def dealt(tests: list[str], seed: int) -> list[list[str]]:
    """What ran side by side at any moment, when it is left to chance who is quicker."""
    draw = random.Random(seed)
    config = SimpleNamespace(getvalue=lambda _: ["2*popen"], option=SimpleNamespace(loadscopereorder=False))
    scheduler, processes = Lanes(cast(Any, config)), [cast(Any, Process()) for _ in range(2)]
    for process in processes:
        scheduler.add_node(process)
        scheduler.add_node_collection(process, sorted(tests, key=place))
    scheduler.schedule()
    moments: list[list[str]] = []
    while running := [process for process in processes if process.ready()]:
        moments.append([scheduler.registered_collections[process][process.queue[0]] for process in running])
        done = draw.choice(running)
        scheduler.mark_test_complete(done, done.queue.pop(0))
    assert not scheduler.workqueue and not any(process.queue for process in processes), "every test was run"
    return moments


@pytest.mark.parametrize("ordinary", [0, 1, 2, 40])
@pytest.mark.parametrize("alone", [0, 1, 5])
@pytest.mark.parametrize("meshes", [0, 1, 30])
def test_nothing_runs_beside_what_is_alone_and_never_two_meshes(ordinary: int, alone: int, meshes: int) -> None:
    tests = [f"tests/{n - n % 3 // 2}.py::test_{n}" for n in range(ordinary)]
    tests += [f"{ALONE[n]}::test" for n in range(alone)] + [f"{TOGETHER[n % 3]}::{n}" for n in range(meshes)]
    for moment in (moment for seed in range(20) for moment in dealt(tests, seed)):
        assert len(moment) == 1 or not any(test.startswith(ALONE) for test in moment)
        assert sum(test.startswith(TOGETHER) for test in moment) <= 1


@pytest.mark.parametrize("alone", [0, 5])
def test_both_processes_have_something_to_do_until_little_is_left(alone: int) -> None:
    files = [f"tests/{n}.py::test" for n in range(40)]
    for seed in range(20):
        moments = dealt([f"{begin}::test" for begin in ALONE[:alone]] + files, seed)
        assert [len(moment) for moment in moments[:-4]] == [1] * alone + [2] * (36)
