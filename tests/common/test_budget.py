"""Deadlines hold when clocks disagree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardmesh_common.budget import Budgets


class Clocks:
    """True time, and a receiver whose wall clock is wrong by `skew` seconds."""

    def __init__(self, skew: float) -> None:
        self.now = 1_000_000.0
        self.skew = skew

    def budgets(self) -> Budgets:
        return Budgets(wall=lambda: self.now + self.skew, monotonic=lambda: self.now)


@pytest.mark.requirement("NB-4")
@given(
    skew=st.floats(-3600, 3600),
    transits=st.lists(st.floats(0, 0.01), min_size=2, max_size=20),
    frozen=st.floats(0.5, 20),
)
def test_time_spent_in_a_frozen_broker_counts_and_skew_does_not(
    skew: float, transits: list[float], frozen: float
) -> None:
    clocks = Clocks(skew)
    budgets = clocks.budgets()
    for transit in transits:
        sent = clocks.now
        clocks.now += transit
        budgets.remaining(b"gateway-1", sent, 10_000)
        clocks.now += 0.1
    sent = clocks.now
    clocks.now += frozen
    left = budgets.remaining(b"gateway-1", sent, 10_000)
    assert left == pytest.approx(10 - frozen, abs=0.02)


@pytest.mark.requirement("NB-4")
def test_the_first_message_of_a_sender_is_judged_by_its_clock_when_that_is_plausible() -> None:
    clocks = Clocks(0.0)
    budgets = clocks.budgets()
    sent = clocks.now
    clocks.now += 3.0
    assert budgets.remaining(b"gateway-1", sent, 2_000) == pytest.approx(-1.0)


@pytest.mark.requirement("NB-4")
def test_a_clock_that_is_set_right_is_learned_within_two_windows() -> None:
    clocks = Clocks(3600.0)
    budgets = clocks.budgets()
    for _ in range(10):
        budgets.remaining(b"s", clocks.now, 5_000)
        clocks.now += 10
    clocks.skew = 0.0
    for _ in range(3):
        assert budgets.remaining(b"s", clocks.now, 5_000) == pytest.approx(5.0, abs=0.01)
        clocks.now += 10
