"""How long from recorded to committed, for how many strategies, at which rate, and what makes the tail?

Models W strategies on one database, each a process with Poisson arrivals of one fill to three order events (bench/paced.py says how a
strategy waits and records). An event's time runs from its intended moment to the moment its strategy hears the ack, so it covers journal,
link, writer, commit (an fsync with durability `power`) and the way back. `recorded` is the part of it until the strategy's cycle had
shipped the event: waking up, encoding, journal, socket. `per_cycle` is how many events a cycle held: a strategy that must record one
every 20 µs finds several due. `strategy_us` and `writer_us` are processor time for one event, all threads of a process together. The
first 0.5 s of every row warms up.

What makes the tail, measured by the last rate with four workers (or the most that were asked for), on a fresh database each:

- `checkpoints beside`: the product as it is: a thread of the writer moves committed pages from the WAL into the database.
- `checkpoints inline`: the same writer, made to do that between two commits, as SQLite does by itself. `p99_of_beside` is how many times
  longer its p99 is in the same repeat.
- `reader, 1 s each`: beside the strategies, somebody reads snapshots of the database, one after the other, for a second each (with the
  first durability only, as the next one).
- `reader, all the time`: one snapshot throughout: then no WAL of SQLite can be used from its beginning again.

`wal_mib_max` is how large the WAL has been. Every row ends with a count: what was recorded must be in the database, or there is no row.
"""

from __future__ import annotations

import math
import shutil
import statistics
import time
from array import array
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import apsw
import psutil

from bench.events import mixed
from bench.machine import sync_cost_us
from bench.open_loop import arrivals, quantiles, shares_above
from bench.options import MAX, Measured, Options, Row, rate_name
from bench.paced import Listener, Seen, drive
from bench.repeats import paired_ratio, spread
from bench.together import Begin, run_together
from bench.writer import cpu_s, private_writer, writer_pid
from horizon.paths import DatabasePaths
from horizon.records import RunStarted
from horizon.store.connection import open_reader

_WARM_UP_S = 0.5
_TIMEOUT_S = 120.0
_TAIL_WORKERS = 4
_TAIL_LONGER = 3.0  # times the seconds of the other rows: a WAL has to fill several times
_SNAPSHOT_S = 1.0
_AS_IT_IS = "checkpoints beside"
_INLINE = "checkpoints inline"
_SHORT_READER = "reader, 1 s each"
_LONG_READER = "reader, all the time"


class _Case(NamedTuple):
    durability: str
    workers: int
    rate: float
    what: str = ""


class _One(NamedTuple):
    """One measurement of a case."""

    events: int
    cycles: int
    committed_ms: array[float]
    recorded_us: array[float]
    strategy_us: float  # processor time per event
    writer_us: float
    wal_mib_max: float


def measure(folder: Path, options: Options) -> Measured:
    if MAX in options.rates:
        raise SystemExit(
            "fill_to_commit needs rates: at full speed an event waits for the length of a queue (see writer_throughput)"
        )
    measured: dict[_Case, list[_One]] = {}
    syncs: list[dict[str, float]] = []
    for _ in range(options.repeats):
        syncs.append(sync_cost_us(folder))
        for durability in options.durabilities:
            with _database(folder, durability) as paths:
                for case in _plain_cases(options, durability):
                    measured.setdefault(case, []).append(_measure(paths, case, options.seconds))
            for case in _tail_cases(options, durability):
                with _database(folder, durability, inline=case.what == _INLINE) as paths:
                    measured.setdefault(case, []).append(_measure(paths, case, _TAIL_LONGER * options.seconds))
    disk = spread("fdatasync_us", [one["p50"] for one in syncs]) | {"fdatasync_p99_us": max(one["p99"] for one in syncs)}
    in_order = sorted(measured, key=lambda case: (options.durabilities.index(case.durability), bool(case.what)))
    rows = [_row(case, measured) | disk for case in in_order]
    return Measured(rows, {_curve_name(case): _curve(ones) for case, ones in measured.items()})


def _plain_cases(options: Options, durability: str) -> list[_Case]:
    return [_Case(durability, workers, rate) for workers in options.workers for rate in options.rates]


def _tail_cases(options: Options, durability: str) -> list[_Case]:
    workers = _TAIL_WORKERS if _TAIL_WORKERS in options.workers else max(options.workers)
    whats = [_AS_IT_IS, _INLINE]
    if durability == options.durabilities[0]:
        whats += [_SHORT_READER, _LONG_READER]
    return [_Case(durability, workers, max(options.rates), what) for what in whats]


@contextmanager
def _database(folder: Path, durability: str, *, inline: bool = False) -> Iterator[DatabasePaths]:
    """A fresh one with a writer on it."""
    place = folder / durability
    place.mkdir()
    paths = DatabasePaths.of(place / "horizon.db")
    with private_writer(paths, durability, checkpoints_inline=inline):
        yield paths
    shutil.rmtree(place)


def _measure(paths: DatabasePaths, case: _Case, seconds: float) -> _One:
    writer = psutil.Process(writer_pid(paths))
    rows_before, cpu_before = _rows_in(paths), cpu_s(writer)
    name = f"{case.rate:g}-{case.workers}"
    arguments = [(paths, f"{name}-{number}", case, seconds, number) for number in range(case.workers)]
    with closing(_Witness(paths, case.what)) as witness:
        seen: list[Seen] = run_together(_strategy, arguments, witness.look)
    recorded = sum(one.recorded for one in seen)
    stored = _rows_in(paths) - rows_before
    if stored != recorded:
        raise SystemExit(f"{recorded} events were recorded and acknowledged, {stored} are in {paths.database}: worthless")
    committed_ms, recorded_us = array("d"), array("d")
    for one in seen:
        committed_ms += one.committed_ms
        recorded_us += one.recorded_us
    strategy_us = sum(one.cpu_s for one in seen) / recorded * 1e6
    writer_us = (cpu_s(writer) - cpu_before) / recorded * 1e6
    return _One(recorded, sum(one.cycles for one in seen), committed_ms, recorded_us, strategy_us, writer_us, witness.wal_mib_max)


class _Witness:
    """Looks at the size of the WAL, and is the reader that a case has."""

    def __init__(self, paths: DatabasePaths, what: str) -> None:
        self.wal_mib_max = 0.0
        self._wal = paths.database.with_name(f"{paths.database.name}-wal")
        self._reader: apsw.Connection | None = None
        self._holds_s = {_SHORT_READER: _SNAPSHOT_S, _LONG_READER: math.inf}.get(what, 0.0)
        self._until = 0.0
        if self._holds_s:
            self._reader = open_reader(paths.database)

    def look(self) -> None:
        self.wal_mib_max = max(self.wal_mib_max, self._wal.stat().st_size / 2**20)
        if self._reader is not None and time.monotonic() >= self._until:
            self._until = time.monotonic() + self._holds_s
            if self._reader.in_transaction:
                self._reader.execute("COMMIT")
            self._reader.execute("BEGIN")
            self._reader.execute("SELECT max(id) FROM order_events").get  # noqa: B018  # a snapshot begins with the first read

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


def _row(case: _Case, measured: dict[_Case, list[_One]]) -> Row:
    ones = measured[case]
    committed = [quantiles(one.committed_ms) for one in ones]
    against: str | float = "-"
    if case.what and case.what != _AS_IT_IS:
        beside = measured[case._replace(what=_AS_IT_IS)]
        against = paired_ratio([one.p99 for one in committed], [quantiles(one.committed_ms).p99 for one in beside])
    events = sum(one.events for one in ones)
    return {
        "durability": case.durability,
        "workers": case.workers,
        "rate": rate_name(case.rate),
        "what": case.what,
        "events": events,
        "per_cycle": round(events / sum(one.cycles for one in ones), 1),
        **spread("p50_ms", [one.p50 for one in committed], 3),
        **spread("p99_ms", [one.p99 for one in committed], 3),
        "p99.9_ms": round(statistics.median(one.p999 for one in committed), 3),
        "max_ms": round(max(one.max for one in committed), 3),
        "p99_of_beside": against,
        "recorded_p50_us": round(statistics.median(quantiles(one.recorded_us).p50 for one in ones), 1),
        "recorded_p99_us": round(statistics.median(quantiles(one.recorded_us).p99 for one in ones), 1),
        "wal_mib_max": round(max(one.wal_mib_max for one in ones), 1),
        "strategy_us": round(statistics.median(one.strategy_us for one in ones), 2),
        "writer_us": round(statistics.median(one.writer_us for one in ones), 2),
    }


def _curve_name(case: _Case) -> str:
    return f"{case.durability}|{case.workers}|{rate_name(case.rate)}|{case.what}"


def _curve(ones: list[_One]) -> list[list[float]]:
    """All repeats together."""
    values = [value for one in ones for value in one.committed_ms]
    return [[round(value, 4), round(share, 7)] for value, share in shares_above(values)]


def _rows_in(paths: DatabasePaths) -> int:
    with closing(open_reader(paths.database)) as reader:
        count: Any = reader.execute("SELECT (SELECT count(*) FROM fills) + (SELECT count(*) FROM order_events)").get
    return int(count)


# ---- in a strategy's process


def _strategy(begin: Begin, paths: DatabasePaths, name: str, case: _Case, seconds: float, seed: int) -> Seen:
    recorder = cast(Listener, Listener.open(paths, name, durability=case.durability, may_start_writer=False))
    # The writer meets a run with its first record, which takes up to 0.1 s: a start's cost, not the road's.
    recorder.record(RunStarted(name, "bench", time.time()))
    recorder.flush(_TIMEOUT_S)
    due_after = arrivals(case.rate / case.workers, _WARM_UP_S + seconds, seed)
    records = mixed(recorder.run_id, len(due_after))
    begin()
    seen = drive(recorder, records, due_after, _WARM_UP_S)
    recorder.close()
    return seen
