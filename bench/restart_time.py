"""How long from the kill of a strategy until the supervisor knows, and until it is ready again?

Models so many strategies that quote fifty times a second under one supervisor; each is killed once with SIGKILL, one after the
other. Times are those of the supervisor's own events, which it logs when it acts, counted from the moment before the kill.

- `noticed_ms`: until the supervisor has seen the death.
- `wait_ms`: the back-off that it chose: at random up to 250 ms after a first crash, so that strategies that died together do
  not start together.
- `start_ms`: from the start of the new process until it is ready: Python, imports, the strategy's file, draining its old
  journal, recovery.
- `ready_ms`: all of it.

The first kill of a row warms up (files are read that nobody had read) and is not counted.

Left out are hangs: they are noticed after `hang_after_s`, whatever the machine.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

from bench.options import Options, Row
from bench.repeats import spread
from bench.supervised import TRADER, Supervised, supervised

_STRATEGIES = (5, 13)


class Restart(NamedTuple):
    """Milliseconds."""

    noticed: float
    wait: float
    start: float
    ready: float


def measure(folder: Path, _options: Options) -> list[Row]:
    return [_row(folder / f"of-{count}", count) for count in _STRATEGIES]


def _row(folder: Path, count: int) -> Row:
    strategies = {f"s{number}": TRADER for number in range(count)}
    with supervised(folder, strategies, tables="interval = 0.02") as running:
        _, *restarts = [_kill(running, name) for name in strategies]
    row: Row = {"strategies": count, "kills": len(restarts)}
    for name in Restart._fields:
        row |= spread(f"{name}_ms", [getattr(restart, name) for restart in restarts], 1)
    return row


def _kill(running: Supervised, name: str) -> Restart:
    pid = running.process_of(name).pid
    assert pid is not None
    killed = time.time()
    os.kill(pid, signal.SIGKILL)
    noticed = running.event(name, "backoff", killed)
    started = running.event(name, "started", killed)
    ready = running.event(name, "ready", started)
    return Restart(
        *(round(seconds * 1000, 1) for seconds in (noticed - killed, started - noticed, ready - started, ready - killed))
    )
