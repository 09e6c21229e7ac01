"""What goes wrong in a run without ending it: a market's pipeline, a feed, a venue that is away."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from horizon.clock import Clock
from horizon.errors import HorizonError

log = logging.getLogger(__name__)

TELL_EVERY_S = 60.0


class Faults:
    """What goes wrong without ending the run: logged in full once per place in the code, then counted, told once a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kinds: dict[tuple[str, object], _Kind] = {}

    def note(self, where: str, what: Exception | str) -> None:
        place = _place_of(what) if isinstance(what, Exception) else what
        kind = self._kinds.setdefault((where, place), _Kind())
        kind.untold += 1
        now = self._clock.monotonic()
        if now - kind.told_at < TELL_EVERY_S:
            return
        is_new = kind.told_at == -math.inf
        more = "" if is_new else f" ({kind.untold} times in the last {now - kind.told_at:.0f} s)"
        # What the operator can read from the sentence needs no traceback.
        trace = what if is_new and isinstance(what, Exception) and not isinstance(what, HorizonError) else None
        text = f"{type(what).__name__}: {what}" if isinstance(what, Exception) else what
        log.error("%s: %s%s", where, text, more, exc_info=trace, extra={"action": "skipped"})
        kind.untold, kind.told_at = 0, now

    def report(self) -> None:
        """At the end: what was counted and not told."""
        for (where, _), kind in self._kinds.items():
            if kind.untold:
                log.error("%s: the same error %d more times", where, kind.untold, extra={"action": "skipped"})
                kind.untold = 0


@dataclass(slots=True)
class _Kind:
    told_at: float = -math.inf
    untold: int = 0


def _place_of(error: Exception) -> tuple[str, int, str]:
    """The type of an error and the line that raised it: its text may hold a number that never repeats."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    file, line = ("", 0) if trace is None else (trace.tb_frame.f_code.co_filename, trace.tb_lineno)
    return file, line, type(error).__name__
