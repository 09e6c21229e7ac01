"""What becomes of memory, files and latency in hours of load?

Models what `memory` models, for as long as `--seconds` says (4 hours are 14400), and looks, 200 times but at most once a second, at

- the private memory and the open files of supervisor, writer and strategies,
- the size of the WAL, and what lies unacknowledged in the journals,
- how long recording took and how long until the commit was heard of, at p50, p99 and the worst, in each stretch between two looks.

A row compares the first fifth after the warm-up with the last one: what leaks or slows down shows there, and in the picture. At the end
everything is counted: what was recorded must be in the database, or there is no row. Each event takes some 400 bytes of disk; a run that
would not leave 2 GiB is refused. Takes the first of the workers, rates and durabilities given.
"""

from __future__ import annotations

import shutil
import statistics
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.open_loop import quantiles
from bench.options import MAX, Measured, Options, Row, Series
from bench.supervised import TRADER, supervised
from bench.sustained import Window, loaded, look, look_at_files
from horizon.store.connection import open_reader

_LOOKS = 200
_EVENT_BYTES = 400
_KEEP_FREE_BYTES = 2 << 30


def measure(folder: Path, options: Options) -> Measured:
    rate, seconds, durability, workers = options.rates[0], options.seconds, options.durabilities[0], options.workers[0]
    if rate == MAX:
        raise SystemExit("soak needs a rate: --rate 5000")
    _refuse_full_disk(folder, rate * seconds * _EVENT_BYTES)
    series: Series = {}
    window_s = max(1.0, seconds / _LOOKS)
    settings = f'[database]\ndurability = "{durability}"'
    place = folder / "soak"
    with supervised(place, {"trader": TRADER}, settings, tables="interval = 0.02") as running:
        pids = {"supervisor": running.process.pid}
        for name in ("writer", "trader"):
            pid = running.process_of(name).pid
            assert pid is not None
            pids[name] = pid
        with loaded(place, running.paths, workers, rate, durability, window_s) as load:
            windows: list[Window] = []
            began = look_at = time.monotonic()
            while (now := time.monotonic()) < began + seconds:
                if now >= look_at:
                    look_at += window_s
                    minutes = (now - began) / 60
                    for name, pid in pids.items():
                        seen = look(pid)
                        _add(series, f"{name}|private MiB", minutes, seen.private_mib)
                        _add(series, f"{name}|open files", minutes, seen.files)
                    files = look_at_files(running.paths)
                    _add(series, "WAL|MiB", minutes, files.wal_mib)
                    _add(series, "journals|unacknowledged KiB", minutes, files.unacked_kib)
                windows += load.windows(max(0.0, min(look_at, began + seconds) - time.monotonic()))
                windows = _add_latencies(series, windows, workers, window_s)
            _add_latencies(series, windows + load.stop(), workers, window_s)
        with closing(open_reader(running.paths.database)) as database:
            stored: Any = database.execute(
                "SELECT coalesce(sum(fills + order_events), 0) FROM run_cursors WHERE strategy LIKE 'load-%'"
            ).get
    if stored != load.recorded:
        raise SystemExit(f"{load.recorded} events were recorded, {stored} are stored: the figures are worthless")
    return Measured([_row(name, points, load.recorded) for name, points in series.items()], series)


def _row(name: str, points: list[list[float]], events: int) -> Row:
    values = [value for _, value in points]
    warm = values[len(values) // 5 :] or values
    fifth = max(1, len(warm) // 4)
    what, unit = name.split("|")
    return {
        "what": what,
        "unit": unit,
        "first": round(statistics.median(warm[:fifth]), 2),
        "last": round(statistics.median(warm[-fifth:]), 2),
        "min": round(min(warm), 2),
        "median": round(statistics.median(warm), 2),
        "max": round(max(warm), 2),
        "events": events,
    }


def _add_latencies(series: Series, windows: list[Window], workers: int, window_s: float) -> list[Window]:
    """Draw together the windows that have come from every worker; return the others."""
    by_number: dict[int, list[Window]] = {}
    for window in windows:
        by_number.setdefault(window.number, []).append(window)
    rest: list[Window] = []
    for number, same in sorted(by_number.items()):
        if len(same) < workers:
            rest += same
            continue
        minutes = number * window_s / 60
        recorded = [value for window in same for value in window.recorded_us]
        committed = [value for window in same for value in window.committed_ms]
        for what, unit, values in (("recorded", "µs", recorded), ("committed", "ms", committed)):
            if values:
                measured = quantiles(values)
                _add(series, f"{what}, p50|{unit}", minutes, measured.p50)
                _add(series, f"{what}, p99|{unit}", minutes, measured.p99)
                _add(series, f"{what}, worst|{unit} at worst", minutes, measured.max)
    return rest


def _add(series: Series, name: str, minutes: float, value: float) -> None:
    series.setdefault(name, []).append([round(minutes, 4), round(value, 3)])


def _refuse_full_disk(folder: Path, needed: float) -> None:
    free = shutil.disk_usage(folder).free
    if free - needed < _KEEP_FREE_BYTES:
        raise SystemExit(
            f"the run would write {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free: lower --rate or --seconds"
        )
