"""A clock that tests move by hand."""

from __future__ import annotations


class FakeClock:
    """A clock that only moves when it is told to."""

    def __init__(self, now: float = 1_700_000_000.0, monotonic: float = 1_000.0) -> None:
        self._now = now
        self._monotonic = monotonic

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        if seconds < 0:
            raise ValueError(f"time does not run backwards: {seconds}")
        self._now += seconds
        self._monotonic += seconds

    def set_wall(self, now: float) -> None:
        """Let the wall clock jump, as an administrator or a time server does; no time passes."""
        self._now = now
