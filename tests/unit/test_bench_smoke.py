"""The continuous check of speed: what makes it fail, and what does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from bench.smoke import compare

WRITTEN = {"record": 0.1, "road": 0.3}
GOOD = {"record": 0.19, "road": 0.59}
SLOW_RECORD = {"record": 0.21, "road": 0.3}
SLOW_ROAD = {"record": 0.1, "road": 0.61}


def rounds(*measured: Mapping[str, float]) -> Callable[[], Mapping[str, float]]:
    return iter(measured).__next__


def test_a_round_without_a_ratio_that_is_twice_as_high_ends_the_check_well() -> None:
    assert compare(WRITTEN, rounds(GOOD)) == 0


def test_a_busy_moment_is_forgiven() -> None:
    assert compare(WRITTEN, rounds(SLOW_RECORD, SLOW_RECORD, GOOD)) == 0


def test_the_same_ratio_twice_as_high_in_three_rounds_fails_and_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(WRITTEN, rounds(SLOW_ROAD, SLOW_ROAD, SLOW_ROAD)) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith(": road")


def test_one_ratio_in_one_round_and_another_in_the_next_is_a_busy_machine() -> None:
    assert compare(WRITTEN, rounds(SLOW_ROAD, SLOW_RECORD)) == 0
