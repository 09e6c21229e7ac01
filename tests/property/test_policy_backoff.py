"""The back-off, whatever happens in whatever order."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy import CEILING_S, FIRST_CEILING_S, FORGOTTEN_AFTER_S, Deaths

EVENTS = st.lists(st.tuples(st.sampled_from(["ready", "death"]), st.floats(0, 3 * FORGOTTEN_AFTER_S)), max_size=60)


@given(events=EVENTS, seed=st.integers(0, 2**32))
def test_a_wait_is_never_negative_and_never_longer_than_the_ceiling_of_its_death(
    events: list[tuple[str, float]], seed: int
) -> None:
    deaths, now, random = Deaths(), 0.0, Random(seed)
    for event, passed_s in events:
        now += passed_s
        deaths = deaths.after_ready(now) if event == "ready" else deaths.after_death(now)
        if event == "death":
            assert 0 <= deaths.wait_s(random) <= min(CEILING_S, FIRST_CEILING_S * 2 ** (deaths.in_a_row - 1))


@given(events=EVENTS)
def test_only_a_long_ready_time_right_before_a_death_forgets_the_earlier_ones(events: list[tuple[str, float]]) -> None:
    deaths, now = Deaths(), 0.0
    for event, passed_s in events:
        now += passed_s
        before = deaths
        deaths = deaths.after_ready(now) if event == "ready" else deaths.after_death(now)
        if event == "death":
            long_ready = before.ready_since is not None and now - before.ready_since >= FORGOTTEN_AFTER_S
            assert deaths.in_a_row == (1 if long_ready else before.in_a_row + 1)


@given(in_a_row=st.integers(1, 10**9), seed=st.integers(0, 2**32))
def test_a_strategy_that_dies_for_ever_overflows_nothing(in_a_row: int, seed: int) -> None:
    assert 0 <= Deaths(in_a_row=in_a_row).wait_s(Random(seed)) <= CEILING_S


@given(seed=st.integers(0, 2**32))
def test_strategies_that_die_together_do_not_come_back_together(seed: int) -> None:
    random = Random(seed)
    waits = {Deaths(in_a_row=8).wait_s(random) for _ in range(8)}
    assert len(waits) == 8
