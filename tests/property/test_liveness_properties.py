"""Who is judged by what, whatever a process says and however the supervisor slept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.liveness import Limits, Verdict, Watch, asleep, judge

LIMITS = Limits(late_s=3.0, hung_s=10.0, loading_s=30.0, recovering_s=300.0, venue_s=60.0)
TURNS = st.lists(st.floats(1.1, 3600.0), min_size=1, max_size=20)
PROGRESS = st.lists(st.integers(0, 5), max_size=40)


@given(sleeps_s=TURNS, awake_s=st.floats(0.0, 0.5))
def test_a_supervisor_that_sleeps_again_and_again_judges_nobody(sleeps_s: list[float], awake_s: float) -> None:
    # Given a process that beats whenever somebody is there to hear it
    watch, now = ready_at(0.0), 0.0
    for progress, slept_s in enumerate(sleeps_s):
        previous, now = now, now + slept_s
        watch.shift(asleep(previous, now))
        # Then it is not late, even before the beats that wait are read
        assert judge(watch, now, LIMITS) is Verdict.FINE
        now += awake_s
        watch.heard(now, progress)


@given(gap_s=st.floats(1.01, 1e6), silent_s=st.integers(0, 40))
def test_a_sleep_neither_ages_nor_absolves_anybody(gap_s: float, silent_s: int) -> None:
    watch = ready_at(0.0)
    watch.shift(asleep(silent_s, silent_s + gap_s))
    moment = silent_s + gap_s + 1e-3
    assert judge(watch, moment, LIMITS) is judge(ready_at(0.0), silent_s + 1e-3, LIMITS)


@given(beats=PROGRESS)
def test_only_a_number_that_rises_is_a_sign_of_life(beats: list[int]) -> None:
    watch = ready_at(0.0)
    newest_rise, highest = 0.0, -1
    for second, progress in enumerate(beats):
        watch.heard(float(second), progress)
        if progress > highest:
            newest_rise, highest = float(second), progress
        assert watch.since == newest_rise


def ready_at(now: float) -> Watch:
    watch = Watch(now)
    watch.ready(now)
    return watch
