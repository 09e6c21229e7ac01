"""Open-loop load: events have intended times, and what delays one event counts against all that had to wait behind it.

A closed loop (send, wait, send) leaves out exactly the moments that hurt: while it waits, it sends nothing that could be late. The
arrivals are a Poisson process, because workers that tick in phase make contention look up to four times worse than it is.
"""

from __future__ import annotations

import ctypes
import os
import random
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

_TFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_TFD_TIMER_ABSTIME = 1
_TIMES = struct.Struct("@qqqq")  # struct itimerspec: the interval, then the moment, each in seconds and nanoseconds


class Quantiles(NamedTuple):
    p50: float
    p99: float
    p999: float
    max: float


def quantiles(values: Sequence[float]) -> Quantiles:
    """Quantiles that are values of the list, of which there is at least one."""
    ranked = sorted(values)
    return Quantiles(*(ranked[min(len(ranked) - 1, int(len(ranked) * share))] for share in (0.5, 0.99, 0.999, 1.0)))


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """The intended times of a Poisson process, in seconds from its start. At least one."""
    chance = random.Random(seed)
    times = [chance.expovariate(rate)]
    while (following := times[-1] + chance.expovariate(rate)) < seconds:
        times.append(following)
    return times


def shares_above(values: Sequence[float], points_a_decade: int = 12) -> list[list[float]]:
    """For a picture: [value, share of the values that are larger], from all of them down to one in the number of values."""
    ranked = sorted(values)
    found: list[list[float]] = []
    step = 0
    while (share := 10 ** (-step / points_a_decade)) * len(ranked) >= 1:
        found.append([ranked[min(len(ranked) - 1, int(len(ranked) * (1 - share)))], share])
        step += 1
    return found


class Alarm:
    """A descriptor that becomes readable at a set moment, as a venue's socket does when a fill comes: precise, and no spinning.

    A sleep with a timeout ends up to a millisecond late, and whoever spins takes a core from the process that is measured.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def fileno(self) -> int:
        return int(self._fd)

    def set(self, due: float) -> None:
        """Readable from `due` (monotonic seconds) on, and not before."""
        seconds = int(due)
        moment = _TIMES.pack(0, 0, seconds, int((due - seconds) * 1e9))
        if self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, moment, None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        os.close(self._fd)
