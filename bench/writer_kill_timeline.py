"""What do strategies record, and what is committed, in the second in which the writer is killed?

Models four strategies under a supervisor, each with a cycle every 20 ms, and a SIGKILL of their writer. A witness reads the heads of
their journals and the cursors in the database every two milliseconds, the latter read-only, as any reader could.

- `standstill_ms`: from the last commit before the kill to the first one after it. A back-off of at most 250 ms is in it.
- `recorded_meanwhile`: what the strategies recorded in that time: they do not notice.
- `caught_up_ms`: from the kill until the database held all that had been recorded a moment before.

A supervisor of its own for each repeat, so that every kill is a first crash.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from bench.options import Measured, Options, Row, Series
from bench.repeats import spread
from bench.supervised import TRADER, supervised, wait_for
from horizon.journal import JournalReader
from horizon.store.connection import open_reader

_STRATEGIES = 4
_BEFORE_S = 0.5
_AFTER_S = 2.5
_LOOK_EVERY_S = 0.002
_LAST_COMMIT_MS = 50.0  # after the kill: what a reader may see as late
_POINTS = 600  # of a curve in the picture


class _Look(NamedTuple):
    at_ms: float  # from the kill
    recorded: int
    committed: int


def measure(folder: Path, options: Options) -> Measured:
    rows: list[Row] = []
    series: Series = {}
    kills_of: dict[str, list[list[_Look]]] = {durability: [] for durability in options.durabilities}
    for repeat in range(options.repeats):
        for durability, found in kills_of.items():
            found.append(_kill(folder / f"{durability}-{repeat}", durability))
    for durability, kills in kills_of.items():
        standstills = [_standstill(looks) for looks in kills]
        row: Row = {"durability": durability, "strategies": _STRATEGIES, "kills": len(kills)}
        row |= spread("standstill_ms", [until.at_ms - since.at_ms for since, until in standstills], 1)
        row |= spread("recorded_meanwhile", [until.recorded - since.recorded for since, until in standstills])
        row |= spread("caught_up_ms", [_caught_up_ms(looks) for looks in kills], 1)
        rows.append(row)
        for repeat, looks in enumerate(kills):
            base = looks[0].committed
            thinned = looks[:: max(1, len(looks) // _POINTS)]
            series[f"recorded|{durability}|{repeat}"] = [[round(look.at_ms, 1), look.recorded - base] for look in thinned]
            series[f"committed|{durability}|{repeat}"] = [[round(look.at_ms, 1), look.committed - base] for look in thinned]
    return Measured(rows, series)


def _kill(folder: Path, durability: str) -> list[_Look]:
    strategies = {f"s{number}": TRADER for number in range(_STRATEGIES)}
    settings = f'[database]\ndurability = "{durability}"'
    with (
        supervised(folder, strategies, settings, tables="interval = 0.02") as running,
        closing(open_reader(running.paths.database)) as database,
    ):
        wait_for(lambda: _committed(database) > 100 * _STRATEGIES, "the strategies to trade")
        journals = [JournalReader(path) for path in running.paths.journals()]
        pid = running.process_of("writer").pid
        assert pid is not None
        kill_at = time.monotonic() + _BEFORE_S
        killed = False
        looks = []
        while (now := time.monotonic()) < kill_at + _AFTER_S:
            if not killed and now >= kill_at:
                kill_at, killed = now, True
                os.kill(pid, signal.SIGKILL)
            # The database first: what is committed was recorded before.
            committed = _committed(database)
            looks.append((time.monotonic(), sum(journal.head_seq for journal in journals), committed))
            time.sleep(_LOOK_EVERY_S)
        for journal in journals:
            journal.close()
    return [_Look((at - kill_at) * 1000, recorded, committed) for at, recorded, committed in looks]


def _standstill(looks: list[_Look]) -> tuple[_Look, _Look]:
    """Between which looks the standstill of the kill lies: the longest that begins with it. Later ones are the strategies' own pauses."""
    longest = since = looks[0], looks[0]
    for look in looks:
        if look.committed > since[0].committed:
            if (
                since[0].at_ms < _LAST_COMMIT_MS
                and look.at_ms > 0
                and look.at_ms - since[0].at_ms > longest[1].at_ms - longest[0].at_ms
            ):
                longest = since[0], look
            since = look, look
    if longest[1].at_ms <= 0:
        raise SystemExit(f"nothing was committed in the {_AFTER_S:g} s after the kill")
    return longest


def _caught_up_ms(looks: list[_Look]) -> float:
    """Until what is committed is again no more than a few looks behind what was recorded."""
    since, until = _standstill(looks)
    for earlier, look in zip(looks, looks[25:], strict=False):
        if look.at_ms >= until.at_ms and look.committed >= earlier.recorded:
            return look.at_ms
    raise SystemExit(f"the writer has not caught up {_AFTER_S:g} s after the kill; it stood still from {since.at_ms:g} ms on")


def _committed(database: apsw.Connection) -> int:
    total: Any = database.execute("SELECT coalesce(sum(committed_seq), 0) FROM run_cursors").get
    return int(total)
