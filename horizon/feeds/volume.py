"""The volume of the last 24 hours of market time, in bounded memory however busy the market."""

from __future__ import annotations

import math
from collections import deque

MINUTE_S = 60
WINDOW_MINUTES = 24 * 60


class RollingVolume:
    """Sums sizes by minutes of market time; what was seen 24 hours ago leaves, a minute at a time.

    One entry per minute and not per trade: a busy market makes millions of trades a day. The closed minutes are summed exactly and
    afresh when one enters or leaves, so the total depends on the trades alone, not on when it was asked for.
    """

    def __init__(self) -> None:
        self._closed: deque[tuple[int, float]] = deque()
        self._closed_total: float | None = 0.0  # None: to be summed afresh
        self._minute = 0
        self._open = 0.0

    def add(self, timestamp: float, size: float) -> None:
        minute = int(timestamp // MINUTE_S)
        if minute != self._minute:
            if self._open:
                self._closed.append((self._minute, self._open))
                self._closed_total = None
            self._minute, self._open = minute, 0.0
            self._forget(minute)
        self._open += size

    def total(self, timestamp: float) -> float:
        minute = int(timestamp // MINUTE_S)
        self._forget(minute)
        if self._closed_total is None:
            self._closed_total = math.fsum(size for _, size in self._closed)
        return self._closed_total + (self._open if self._minute > minute - WINDOW_MINUTES else 0.0)

    def _forget(self, minute: int) -> None:
        while self._closed and self._closed[0][0] <= minute - WINDOW_MINUTES:
            self._closed.popleft()
            self._closed_total = None
