"""Open-loop load: events have intended times, and what delays one event counts against all that had to wait behind it.

A closed loop (send, wait, send) leaves out exactly the moments that hurt: while it waits, it sends nothing that could be late. The
arrivals are a Poisson process, because workers that tick in phase make contention look up to four times worse than it is.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import NamedTuple

_SPIN_S = 200e-6  # a sleep wakes up late by about this much


class Quantiles(NamedTuple):
    p50: float
    p99: float
    p999: float
    max: float


def quantiles(values: Sequence[float]) -> Quantiles:
    """The nearest-rank quantiles of at least one value."""
    ranked = sorted(values)
    return Quantiles(*(ranked[min(len(ranked) - 1, int(len(ranked) * share))] for share in (0.5, 0.99, 0.999, 1.0)))


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """The intended times of a Poisson process, in seconds from its start. At least one."""
    chance = random.Random(seed)
    times = [chance.expovariate(rate)]
    while (following := times[-1] + chance.expovariate(rate)) < seconds:
        times.append(following)
    return times


def wait_until(due: float) -> None:
    """Return at `due` (monotonic seconds), not after it: sleep for the most part, then spin."""
    while (left := due - time.monotonic()) > 0:
        if left > _SPIN_S:
            time.sleep(left - _SPIN_S)
