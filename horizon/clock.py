"""The two clocks, as one object that tests can replace.

Wall time (Unix seconds, UTC) is only ever stored or shown; every interval and deadline uses the monotonic clock, so that a
wall clock that jumps changes no order, no position and no recovery.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Unix seconds, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps."""
        ...


class SystemClock:
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


SYSTEM_CLOCK: Clock = SystemClock()
