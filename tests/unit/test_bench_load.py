"""What the benchmarks do with figures, with moments and with processes: pure parts, and the ends of the others."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import closing
from itertools import pairwise

import pytest

from bench.__main__ import main
from bench.open_loop import Alarm, arrivals, quantiles, shares_above
from bench.options import MAX, rate_name
from bench.repeats import paired_ratio, spread
from bench.together import Begin, run_together


def test_quantiles_are_values_that_were_there() -> None:
    assert quantiles([3.0, 1.0, 2.0]) == (2.0, 3.0, 3.0, 3.0)
    assert quantiles([7.0]) == (7.0, 7.0, 7.0, 7.0)
    thousand = quantiles(list(map(float, range(1000))))
    assert thousand == (500.0, 990.0, 999.0, 999.0)


def test_arrivals_rise_within_the_time_at_the_rate_and_are_the_same_for_the_same_seed() -> None:
    times = arrivals(1000.0, 10.0, seed=3)
    assert all(before < after for before, after in pairwise(times))
    assert times[0] > 0
    assert times[-1] < 10.0
    assert 9_500 < len(times) < 10_500  # five times the deviation of a Poisson process
    assert times == arrivals(1000.0, 10.0, seed=3) != arrivals(1000.0, 10.0, seed=4)


def test_there_is_at_least_one_arrival() -> None:
    assert len(arrivals(0.001, 0.001, seed=1)) == 1


def test_the_share_of_larger_values_falls_down_to_one_of_them() -> None:
    points = shares_above(list(map(float, range(1000, 0, -1))), points_a_decade=1)
    assert points == [[1.0, 1.0], [901.0, 0.1], [991.0, 0.01], [1000.0, 0.001]]


def test_a_spread_is_the_least_the_median_and_the_most() -> None:
    assert spread("p50_us", [3.04, 1.0, 2.0], 1) == {"p50_us_min": 1.0, "p50_us": 2.0, "p50_us_max": 3.0}
    assert spread("per_s", [10.6]) == {"per_s_min": 11, "per_s": 11, "per_s_max": 11}


def test_a_paired_ratio_does_not_mind_a_machine_that_slows_down_between_repeats() -> None:
    assert paired_ratio([200.0, 20.0, 2.0], [100.0, 10.0, 1.0]) == 2.0


def test_a_rate_is_named_as_it_is_asked_for() -> None:
    assert [rate_name(rate) for rate in (MAX, 100.0, 2_500_000.0, 0.5)] == ["max", "100", "2500000", "0.5"]


def test_an_alarm_is_readable_from_its_moment_on_and_not_before() -> None:
    with closing(Alarm()) as alarm:
        due = time.monotonic() + 0.05
        alarm.set(due)
        assert select.select([alarm], [], [], 10.0)[0] == [alarm]
        assert time.monotonic() >= due
        alarm.set(time.monotonic() + 60)
        assert select.select([alarm], [], [], 0)[0] == []
        alarm.set(time.monotonic() - 1)
        assert select.select([alarm], [], [], 10.0)[0] == [alarm]


def test_processes_begin_together_and_answer_in_their_order() -> None:
    looks: list[int] = []
    assert run_together(_square, [(3,), (1,), (2,)], lambda: looks.append(1)) == [9, 1, 4]
    assert looks


def test_the_death_of_one_process_ends_the_others_and_is_told() -> None:
    with pytest.raises(SystemExit, match="has died"):
        run_together(_square, [(3,), (-1,), (2,)])


def _square(begin: Begin, number: int) -> int:
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    begin()
    return number * number


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nonsense"], "there is no benchmark 'nonsense'; there are record_cost, "),
        (["record_cost", "--workers", "4"], "--workers means nothing to record_cost; it takes --rate, --seconds, --repeats"),
        (["fill_to_commit", "--workers", "0"], "a whole number from 1 on is needed, not '0'"),
        (["fill_to_commit", "--rate", "fast"], "not 'fast'"),
        (["fill_to_commit", "--seconds", "nan"], "a number of seconds above zero is needed, not 'nan'"),
        (["fill_to_commit", "--durability", "both"], "durability is process or power, not 'both'"),
        (["memory", "--write-down"], "--write-down is for smoke"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert sentence in capsys.readouterr().err
