"""How long is nothing committed when the writer is killed?

Models strategies that record fifty times a second each, while their writer is killed with SIGKILL. A reader beside them looks
every two milliseconds for a new order event.

- `noticed_ms`: until the supervisor has seen the death.
- `ready_ms`: until the new writer has opened the database, drained what it found, and told that it is ready.
- `first_commit_ms`: until a reader sees the first row that was not there when the writer died: for so long a `flush()` waits.

A supervisor of its own for each kill, so that every one is a first crash: a back-off of at most 250 ms is in the figures.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from bench.options import Options, Row
from bench.repeats import spread
from bench.supervised import TRADER, supervised, wait_for
from horizon.store.connection import open_reader

_STRATEGIES = 4


class Gap(NamedTuple):
    """Milliseconds."""

    noticed: float
    ready: float
    first_commit: float


def measure(folder: Path, options: Options) -> list[Row]:
    gaps: dict[str, list[Gap]] = {durability: [] for durability in options.durabilities}
    for repeat in range(options.repeats):
        for durability, found in gaps.items():
            found.append(_kill(folder / f"{durability}-{repeat}", durability))
    return [_row(durability, found) for durability, found in gaps.items()]


def _row(durability: str, gaps: list[Gap]) -> Row:
    row: Row = {"durability": durability, "strategies": _STRATEGIES, "kills": len(gaps)}
    for name in Gap._fields:
        row |= spread(f"{name}_ms", [getattr(gap, name) for gap in gaps], 1)
    return row


def _kill(folder: Path, durability: str) -> Gap:
    strategies = {f"s{number}": TRADER for number in range(_STRATEGIES)}
    settings = f'[database]\ndurability = "{durability}"'
    with (
        supervised(folder, strategies, settings, tables="interval = 0.02") as running,
        closing(open_reader(running.paths.database)) as reader,
    ):
        wait_for(lambda: _newest(reader) > 0, "a first row")
        pid = running.process_of("writer").pid
        assert pid is not None
        killed = time.time()
        os.kill(pid, signal.SIGKILL)
        noticed = running.event("writer", "backoff", killed)
        before = _newest(reader)
        wait_for(lambda: _newest(reader) > before, "a row of the new writer")
        committed = time.time()
        ready = running.event("writer", "ready", killed)
    return Gap((noticed - killed) * 1000, (ready - killed) * 1000, (committed - killed) * 1000)


def _newest(reader: apsw.Connection) -> int:
    newest: Any = reader.execute("SELECT coalesce(max(id), 0) FROM order_events").get
    return int(newest)
