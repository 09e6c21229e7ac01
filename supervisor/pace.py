"""How long the loop's turns take, its waiting apart: what it is late by when something happens to a child."""

from __future__ import annotations

_SPAN_S = 5.0


class Pace:
    """The longest turn of the last five to ten seconds."""

    def __init__(self) -> None:
        self._begun_at: float | None = None
        self._span_until = 0.0
        self._longest_s = 0.0
        self._longest_before_s = 0.0

    def begin(self, now: float) -> None:
        """The loop has come back from waiting."""
        self._begun_at = now
        if now >= self._span_until:
            self._longest_before_s, self._longest_s = self._longest_s, 0.0
            self._span_until = now + _SPAN_S

    def end(self, now: float) -> None:
        """It waits again."""
        if self._begun_at is not None:
            self._longest_s = max(self._longest_s, now - self._begun_at)

    @property
    def lag_ms(self) -> float:
        return 1000 * max(self._longest_s, self._longest_before_s)
