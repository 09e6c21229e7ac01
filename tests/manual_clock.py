"""A clock that stands still until a test moves it."""

from __future__ import annotations


class ManualClock:
    """Keeps the protocol `horizon.clock.Clock`; both times move together."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> float:
        return self._now + self._monotonic

    def monotonic(self) -> float:
        return self._monotonic

    def forward(self, seconds: float) -> None:
        self._monotonic += seconds
