"""Whether a process still does something: pure, from what it says and when.

The signs of life come from a strategy's own cycle, with a number that rises with every turn. One whose number stands still comes from a
process that can still speak and does nothing else. What takes long and cannot beat meanwhile (to load, to recover, to wait for a venue) is
told beforehand, and has a deadline of its own.

A supervisor that was asleep itself (stopped, starved, its machine suspended) has heard nobody: that time counts against none of them.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from horizon.channel import PhaseName

_ASLEEP_AFTER_S = 1.0  # a turn of the loop that took so long: others had no chance to be heard


class Verdict(Enum):
    FINE = "fine"
    LATE = "late"
    HUNG = "hung"


class Limits(NamedTuple):
    """How long a process may show no sign of life."""

    late_s: float
    hung_s: float
    loading_s: float
    recovering_s: float
    venue_s: float

    def of_phase(self, phase: PhaseName) -> float:
        return {"loading": self.loading_s, "recovering": self.recovering_s, "venue": self.venue_s}[phase]


class Watch:
    """The newest sign of life of one incarnation."""

    def __init__(self, now: float, beats_before_ready: bool = False) -> None:
        """`beats_before_ready`: it may take as long as it likes to become ready, if only it goes on beating (the writer)."""
        self.phase: PhaseName | None = "loading"  # what it said that it does; None: its cycle runs
        self.since = now  # of the phase, or of the newest sign of life
        self._progress = -1
        self._beats_count = beats_before_ready

    def ready(self, now: float) -> None:
        """It has recovered, and its cycle begins."""
        self._beats_count = True
        self._alive(now)

    def heard(self, now: float, progress: int) -> None:
        """A beat. Before it is ready it ends no phase: a start that beats for ever and never ends is none."""
        if progress > self._progress:
            self._progress = progress
            if self._beats_count:
                self._alive(now)

    def in_phase(self, now: float, name: PhaseName) -> None:
        """It says what it does now. Each call of a venue is another one; the rest is not prolonged by saying it again."""
        if name != self.phase or name == "venue":
            self.phase, self.since = name, now

    def shift(self, seconds: float) -> None:
        """So much of the time that has passed does not count against it."""
        self.since += seconds

    def _alive(self, now: float) -> None:
        self.phase, self.since = None, now


def judge(watch: Watch, now: float, limits: Limits) -> Verdict:
    silent_s = now - watch.since
    if watch.phase is not None:
        return Verdict.HUNG if silent_s >= limits.of_phase(watch.phase) else Verdict.FINE
    if silent_s >= limits.hung_s:
        return Verdict.HUNG
    return Verdict.LATE if silent_s >= limits.late_s else Verdict.FINE


def asleep(previous: float, now: float) -> float:
    """How long the supervisor slept between two turns of its loop (monotonic); 0.0: it was awake."""
    return now - previous if now - previous > _ASLEEP_AFTER_S else 0.0
