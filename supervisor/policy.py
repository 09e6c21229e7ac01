"""When a process that ended is started again, and when no more. Pure: time and chance come in from outside.

Only what a new start can cure is started again: an exception, a halt, a signal. A wrong configuration (exit 2) or a file that does not
load (exit 3) stays wrong, and starting it again and again would bury the one line that says why.

The waits are full jitter, each anywhere between nothing and a ceiling that doubles: strategies that die together (of one venue, say) do
not come back together and die together again. What still dies after so many new starts within a time (systemd's start limit) is taken out
until a person has looked at it. A program that cannot even be started (no memory, no process left) is the host's trouble: it waits in the
same way, and no number of tries takes it out.
"""

from __future__ import annotations

import signal
from enum import Enum
from random import Random
from typing import NamedTuple

from horizon.errors import ExitCode

FIRST_CEILING_S = 0.25
CEILING_S = 30.0
FORGOTTEN_AFTER_S = 60.0  # so long ready: what failed before has nothing to do with it


class Verdict(Enum):
    DONE = "done"  # it ended because it had nothing left to do
    AGAIN = "again"
    FINAL = "final"  # a new start would end the same way


class StartLimit(NamedTuple):
    """So many starts after crashes within so long a time, and no more."""

    burst: int = 5  # 0: no limit
    interval_s: float = 300.0


class Deaths(NamedTuple):
    """What the policy remembers of one process's incarnations."""

    in_a_row: int = 0
    ready_since: float | None = None  # monotonic; None: this incarnation has not been ready yet
    restarts: tuple[float, ...] = ()  # when it was started after a crash: the newest, no more than the limit needs

    def after_ready(self, now: float) -> Deaths:
        return self._replace(ready_since=now)

    def after_death(self, now: float) -> Deaths:
        forgotten = self.ready_since is not None and now - self.ready_since >= FORGOTTEN_AFTER_S
        return Deaths(1 if forgotten else self.in_a_row + 1, None, self.restarts)

    def after_restart(self, now: float, limit: StartLimit) -> Deaths:
        kept = (*self.restarts, now)[-limit.burst :] if limit.burst else ()
        return self._replace(restarts=kept)

    def may_restart(self, now: float, limit: StartLimit) -> bool:
        """Whether one more start keeps within the limit. Being ready for long forgets nothing here: the interval does."""
        recent = sum(now - at < limit.interval_s for at in self.restarts)
        return not limit.burst or recent < limit.burst

    def wait_s(self, random: Random) -> float:
        """How long to wait before the next start."""
        # The exponent is bounded because 2.0 ** 1100 overflows, and a strategy can die that often.
        return random.uniform(0.0, min(CEILING_S, FIRST_CEILING_S * 2.0 ** min(self.in_a_row - 1, 32)))


def judge_worker(exit_code: int) -> Verdict:
    """Negative codes are signals, as subprocess and multiprocessing report them."""
    if exit_code == ExitCode.DONE:
        return Verdict.DONE
    return Verdict.FINAL if exit_code in (ExitCode.USAGE, ExitCode.STRATEGY) else Verdict.AGAIN


def judge_writer(exit_code: int) -> Verdict:
    """A writer is never done while the supervisor lives; the store's own trouble (exit 4) is what time cannot cure."""
    return Verdict.FINAL if exit_code in (ExitCode.USAGE, ExitCode.STORE) else Verdict.AGAIN


def describe_end(exit_code: int) -> str:
    """How a process ended, in words."""
    if exit_code == ExitCode.DONE:
        return "is done"
    if exit_code < 0:
        return f"was killed by {signal_name(-exit_code)}"
    meaning = ExitCode(exit_code).meaning if exit_code in list(ExitCode) else "a code of its own"
    return f"ended with exit code {exit_code} ({meaning})"


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"
