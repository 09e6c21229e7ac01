"""What counts as a sign of life, and how long a process may be without one."""

from __future__ import annotations

import pytest

from supervisor.liveness import Limits, Verdict, Watch, asleep, judge

LIMITS = Limits(late_s=3.0, hung_s=10.0, loading_s=30.0, recovering_s=300.0, venue_s=60.0)


@pytest.fixture
def watch() -> Watch:
    """Of a process that was started at 0 and is ready at 100."""
    watch = Watch(0.0)
    watch.ready(100.0)
    return watch


@pytest.mark.parametrize(
    ("silent_s", "verdict"),
    [(2.9, Verdict.FINE), (3.0, Verdict.LATE), (9.9, Verdict.LATE), (10.0, Verdict.HUNG), (1e6, Verdict.HUNG)],
)
def test_who_is_silent_is_late_and_then_hangs(watch: Watch, silent_s: float, verdict: Verdict) -> None:
    watch.heard(200.0, progress=1)
    assert judge(watch, 200.0 + silent_s, LIMITS) is verdict


def test_a_beat_whose_progress_stands_still_is_no_sign_of_life(watch: Watch) -> None:
    watch.heard(101.0, progress=5)
    for second in range(102, 112):
        watch.heard(float(second), progress=5)
    assert judge(watch, 111.0, LIMITS) is Verdict.HUNG
    watch.heard(112.0, progress=6)
    assert judge(watch, 112.0, LIMITS) is Verdict.FINE


@pytest.mark.parametrize(("phase", "limit_s"), [("loading", 30.0), ("recovering", 300.0), ("venue", 60.0)])
def test_each_phase_has_a_deadline_of_its_own(phase: str, limit_s: float) -> None:
    watch = Watch(0.0)
    watch.in_phase(0.0, phase)  # type: ignore[arg-type]
    assert judge(watch, limit_s - 0.1, LIMITS) is Verdict.FINE
    assert judge(watch, limit_s, LIMITS) is Verdict.HUNG


def test_a_phase_is_not_prolonged_by_saying_it_again() -> None:
    watch = Watch(0.0)
    for second in range(30):
        watch.in_phase(float(second), "loading")
    assert judge(watch, 30.0, LIMITS) is Verdict.HUNG


def test_every_call_of_a_venue_has_its_own_time(watch: Watch) -> None:
    watch.in_phase(150.0, "venue")
    watch.in_phase(200.0, "venue")
    assert judge(watch, 259.0, LIMITS) is Verdict.FINE


def test_the_next_beat_ends_a_call_of_a_venue(watch: Watch) -> None:
    watch.in_phase(150.0, "venue")
    watch.heard(200.0, progress=1)
    assert judge(watch, 203.0, LIMITS) is Verdict.LATE


def test_a_start_that_beats_for_ever_and_is_never_ready_hangs() -> None:
    watch = Watch(0.0)
    for second in range(31):
        watch.heard(float(second), progress=second)
    assert judge(watch, 30.0, LIMITS) is Verdict.HUNG


def test_a_writer_may_drain_for_long_if_only_it_goes_on_beating() -> None:
    watch = Watch(0.0, beats_before_ready=True)
    for second in range(1000):
        watch.heard(float(second), progress=second)
    assert judge(watch, 1000.0, LIMITS) is Verdict.FINE
    assert judge(watch, 1010.0, LIMITS) is Verdict.HUNG


def test_time_in_which_the_supervisor_slept_does_not_count(watch: Watch) -> None:
    watch.heard(200.0, progress=1)
    gap_s = asleep(200.1, 320.1)
    assert gap_s == pytest.approx(120.0)
    watch.shift(gap_s)
    assert judge(watch, 320.1, LIMITS) is Verdict.FINE
    assert judge(watch, 330.1, LIMITS) is Verdict.HUNG


def test_a_turn_of_ordinary_length_is_no_sleep() -> None:
    assert asleep(10.0, 10.5) == 0.0
