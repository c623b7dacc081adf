"""Fail closed: Cerbos dead, frozen, restarted or speaking nonsense is a refusal within the deadline."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import engines
from policy.pdp_stage import POLICIES, Judge, call_of, caller, judging
from wardmesh_common.errors import Unavailable
from wardmesh_policy.checks import Caller, Check
from wardmesh_policy.verdicts import Unreadable, Verdict, verdict_of

pytestmark = pytest.mark.anyio
BUDGET_SECONDS = 5.0  # of a call that says nothing else


async def refused_after(judge: Judge, number: int) -> float:
    """Seconds until the refusal; every question is another one, so that no verdict is remembered."""
    started = time.monotonic()
    with pytest.raises(Unavailable):
        await judge.ask("Doctor", "read", "Patient", resource_id=f"n{number}")
    return time.monotonic() - started


async def recovered(judge: Judge, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            try:
                decision = await judge.ask("Doctor", "read", "Patient", resource_id=f"r{time.monotonic_ns()}")
            except Unavailable:
                await asyncio.sleep(0.02)
                continue
            assert decision.allowed
            return


async def test_without_cerbos_nothing_is_allowed_and_it_comes_back_by_itself() -> None:
    with engines.cerbos(POLICIES) as engine:
        async with judging(engine.target) as judge:
            await recovered(judge)
            engine.kill()
            took = [await refused_after(judge, number) for number in range(5)]
            assert min(took) < 0.5, "a dead socket is noticed at once"
            engine.start()
            await recovered(judge)
            engine.freeze()
            assert await refused_after(judge, 9) < BUDGET_SECONDS, "a frozen one by the time-out"
            with pytest.raises(Unavailable):
                await judge.ask("Doctor", "create", "Patient")
            engine.thaw()
            await recovered(judge)


async def test_a_frozen_cerbos_never_outlasts_the_calls_own_budget() -> None:
    with engines.cerbos(POLICIES) as engine:
        async with judging(engine.target) as judge:
            await recovered(judge)
            engine.freeze()
            took: list[float] = []
            while len(took) < 5 and min(took, default=9.0) >= 0.6:  # a machine may be busy with something else
                started = time.monotonic()
                with pytest.raises(Unavailable):
                    await judge.decide(caller("Doctor"), call_of("read", "Patient", str(len(took))), remaining=0.6)
                took.append(time.monotonic() - started)
            assert min(took) < 0.6, took
            engine.thaw()


async def test_a_cerbos_that_was_never_there_refuses() -> None:
    async with judging("unix:/tmp/there-is-no-such-socket") as judge:
        assert await refused_after(judge, 0) < BUDGET_SECONDS


@pytest.mark.parametrize(
    ("rule", "output"),
    [
        ("whole", '{"mask": V.masks}'),
        ("whole", '{"masks": 7}'),
        ("whole", '"not json"'),
        ("whole", '{"masks": "Patient name hide"}'),
        ("whole", '{"masks": "Patient . keep"}'),
        ("whole", "P.attr.there_is_no_such_attribute"),
        ("masks", "C.there_is_no_such_constant.x"),
    ],
)
async def test_an_output_that_nobody_understands_is_a_refusal(tmp_path: Path, rule: str, output: str) -> None:
    folder = Path(shutil.copytree(POLICIES, tmp_path / "policies"))
    answers = folder / "answers.yaml"
    lines = answers.read_text().splitlines()
    if rule == "masks":
        start = next(n for n, line in enumerate(lines) if line.startswith("    masks:"))
        end = next(n for n, line in enumerate(lines) if line.startswith("    narrowed:"))
        lines[start:end] = ["    masks: P.attr.there_is_no_such_attribute"]
    else:
        lines = [f"    whole: '{output}'" if line.startswith("    whole:") else line for line in lines]
    answers.write_text("\n".join(lines) + "\n")
    with engines.cerbos(folder) as engine:
        async with judging(engine.target, folder) as judge:
            with pytest.raises(Unavailable):
                await judge.ask("Nurse", "read", "Patient", resource_id="1")


class Short:
    """Answers one verdict too few."""

    async def ask(
        self, caller: Caller, checks: Sequence[tuple[Check, dict[str, Any]]], timeout_seconds: float
    ) -> list[Verdict]:
        return [Verdict(allowed=True)] * (len(checks) - 1)


async def test_a_missing_verdict_is_no_allow() -> None:
    with pytest.raises(ValueError, match="zip"):
        await Judge(Short()).ask("Doctor", "read", "Patient", resource_id="1")


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [("p#r", "null")],
        [("p#r", "[]")],
        [("p#r", '{"reason": "x"}')],
        [("p#r", '{"reason": "x", "masks": "* text remove"}')],
    ],
)
def test_an_allow_that_demands_nothing_readable_is_refused(outputs: list[tuple[str, str]]) -> None:
    with pytest.raises(Unreadable):
        verdict_of(True, outputs, missing="")
