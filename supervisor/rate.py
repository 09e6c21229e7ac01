"""How much may come in a time: a bucket that fills at a steady pace, and is emptied by what comes."""

from __future__ import annotations

LINES_PER_S = 1000.0  # log lines of one process that the supervisor takes, in the long run
BURST = 5000  # and at once


class Rate:
    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left = burst
        self._at = 0.0

    def allows(self, now: float) -> bool:
        """Whether one more may come at this time (monotonic); that it came is noted."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
