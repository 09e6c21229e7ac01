"""What a benchmark is asked for, and the shape of what it answers."""

from __future__ import annotations

from typing import NamedTuple

MAX = 0.0  # the rate that means: as fast as it goes

Row = dict[str, str | int | float]

Series = dict[str, list[list[float]]]  # named curves, each a list of points: what a picture is drawn from


class Options(NamedTuple):
    workers: list[int]  # strategies at once
    rates: list[float]  # events per second over all workers; MAX: as fast as it goes
    seconds: float  # how long each row is measured
    durabilities: list[str]
    repeats: int = 3  # of each row, interleaved


class Measured(NamedTuple):
    """What a benchmark answers that has more to show than rows."""

    rows: list[Row]
    series: Series


def rate_name(rate: float) -> str:
    return "max" if rate == MAX else f"{rate:.15g}"
