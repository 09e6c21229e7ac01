"""How many events a second does the writer commit when its strategies never stop, and what would SQLite take at most?

Models W strategies on one database that record one fill to three order events as fast as their journals take them, in cycles of 64. The
first third of a row fills the journals and is not counted; `per_s` is what was acknowledged in the rest, while every strategy still
recorded. `waiting` is the share of that time in which a strategy waited for room in its journal: where it is small, the figure is the
strategies' and not the writer's. Strategies and writer share the cores, so `cpu_us` is said too: the processor time of the writer, all its
threads, for one event. It says what the writer could do with a core of its own, whoever else is on the machine; `cpu_of_c` is that of C
divided by it. Every run is counted: what was recorded must be in the database, or there is no row.

What it is compared with, in the same run, one after the other in each repeat, on fresh databases that the product made, with its
statements and its pragmas, in transactions of 1,000 events, with checkpoints, and a last one before the clock is stopped:

- `C, all`: ceiling.c, prepared statements; with what the writer keeps beside the rows (open orders, cursor). The ceiling.
- `C, rows only`: the same without these.
- `apsw executemany`, `sqlite3 executemany`: rows only, as tuples that were made before.
- `Store.append`: the writer's own commit, with records that were decoded before: no journal, no socket.
- `journal to Store.append`: what the writer does for an event, without sockets and strategies: read a journal, check, decode, commit.

C and the sqlite3 module use the system's SQLite, apsw brings its own: `sqlite` says which. Ratios are medians of those within each repeat.
"""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import msgspec
import psutil
from msgspec.structs import astuple

from bench.events import endless, mixed
from bench.machine import sync_cost_us
from bench.options import Options, Row
from bench.repeats import paired_ratio, spread
from bench.together import Begin, run_together
from bench.writer import cpu_s, end_writer, private_writer, writer_pid
from horizon.ids import new_run_id
from horizon.journal import About, Journal
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.records import Fill, OrderEvent, RunStarted
from horizon.store.append import Store, Stretch
from horizon.store.connection import connect
from horizon.store.sql import QUERIES
from horizon.wire import decode_records
from horizon.writer.batch import MAX_RECORDS, Batch
from horizon.writer.catchup import open_run, read_missing

_EVENTS = 240_000  # of a comparison: some 120 MB of WAL, dozens of checkpoints
_EVENT_MAX_BYTES = 400  # in a journal
_PREMADE = 800_000  # records of a row that are made before the clock starts: making one costs more than recording it
_CYCLE = 64  # events that a strategy records in one cycle
_RAMP = 1 / 3  # share of a row that is not counted
_LOOK_EVERY_S = 1e-3
_SAMPLE_EVERY_S = 0.02
_TIMEOUT_S = 300.0
_PRAGMAS = ("journal_mode", "synchronous", "cache_size", "temp_store", "mmap_size")
_STATEMENTS = ("insert_fill", "insert_order_event", "close_order", "advance_run", "set_meta")
_CEILING = "C, all"


class _Rate(NamedTuple):
    per_s: float
    cpu_us: float  # processor time for one event, of the process that commits
    events: int
    sqlite: str = apsw.sqlite_lib_version()
    waiting: float = 0.0


class _Stream(NamedTuple):
    """The same events for all that are compared, made before any clock starts."""

    run_id: str
    records: list[Fill | OrderEvent]
    fills: list[tuple[Any, ...]]  # as rows
    order_events: list[tuple[Any, ...]]


def measure(folder: Path, options: Options) -> list[Row]:
    compiled = _compiled_ceiling(folder)
    stream = _stream()
    gc.collect()
    gc.freeze()
    return [row for durability in options.durabilities for row in _rows(folder, options, durability, compiled, stream)]


def _rows(folder: Path, options: Options, durability: str, compiled: Path | None, stream: _Stream) -> list[Row]:
    ways: dict[str, Callable[[DatabasePaths], _Rate]] = {}
    if compiled is not None:
        ways[_CEILING] = partial(_in_c, compiled, durability, True)
        ways["C, rows only"] = partial(_in_c, compiled, durability, False)
    ways["apsw executemany"] = partial(_by_executemany, _apsw_executor, durability, stream)
    ways["sqlite3 executemany"] = partial(_by_executemany, _sqlite3_executor, durability, stream)
    ways["Store.append"] = partial(_by_store, durability, stream)
    ways["journal to Store.append"] = partial(_by_journal, durability, stream)
    for workers in options.workers:
        ways[f"Horizon, {workers} strateg{'y' if workers == 1 else 'ies'}"] = partial(
            _by_writer, durability, workers, options.seconds
        )
    measured: dict[str, list[_Rate]] = {name: [] for name in ways}
    syncs: list[dict[str, float]] = []
    for repeat in range(options.repeats):
        syncs.append(sync_cost_us(folder))
        for name, way in ways.items():
            place = folder / f"{durability}-{repeat}"
            place.mkdir()
            paths = DatabasePaths.of(place / "horizon.db")
            Store(paths, durability).close()
            measured[name].append(way(paths))
            shutil.rmtree(place)
    ceiling = measured.get(_CEILING, [])
    disk = spread("fdatasync_us", [one["p50"] for one in syncs]) | {"fdatasync_p99_us": max(one["p99"] for one in syncs)}
    return [{"durability": durability, "way": name, **_row(rates, ceiling), **disk} for name, rates in measured.items()]


def _row(rates: Sequence[_Rate], ceiling: Sequence[_Rate]) -> Row:
    return {
        "sqlite": rates[0].sqlite,
        "events": sum(one.events for one in rates),
        **spread("per_s", [one.per_s for one in rates]),
        "of_c": paired_ratio([one.per_s for one in rates], [one.per_s for one in ceiling]) if ceiling else "-",
        **spread("cpu_us", [one.cpu_us for one in rates], 2),
        "cpu_of_c": paired_ratio([one.cpu_us for one in ceiling], [one.cpu_us for one in rates]) if ceiling else "-",
        "waiting": round(max(one.waiting for one in rates), 2),
    }


def _stream() -> _Stream:
    run_id = new_run_id()
    stream = _Stream(run_id, mixed(run_id, _EVENTS), [], [])
    for seq, record in enumerate(stream.records, start=1):
        row = tuple(getattr(value, "value", value) for value in astuple(record))
        if isinstance(record, Fill):
            stream.fills.append((*row, record.timestamp, "bench", run_id, seq, len(stream.fills) + 1))
        else:
            stream.order_events.append((*row, "bench", run_id, seq))
    return stream


# ---- the ceiling


def _compiled_ceiling(folder: Path) -> Path | None:
    """The program, or None with a line that says why there is none."""
    source, program = Path(__file__).with_name("ceiling.c"), folder / "ceiling"
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        print("no ceiling in C: there is no C compiler here (Debian, Ubuntu: apt install gcc libsqlite3-dev)")
        return None
    done = subprocess.run([compiler, "-O2", "-o", program, source, "-lsqlite3"], capture_output=True, text=True)
    if done.returncode:
        print(f"no ceiling in C: {compiler} cannot build it (is libsqlite3-dev installed?): {done.stderr.strip()[:300]}")
        return None
    return program


def _in_c(program: Path, durability: str, everything: bool, paths: DatabasePaths) -> _Rate:
    with closing(connect(paths.database, durability)) as connection:
        pragmas = "".join(f"PRAGMA {name} = {connection.pragma(name)};" for name in _PRAGMAS)
    statements = [QUERIES[name] for name in _STATEMENTS]
    counts = [str(_EVENTS), str(MAX_RECORDS), str(int(everything))]
    done = subprocess.run([program, paths.database, *counts, pragmas, *statements], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    _check_count(paths, _EVENTS)
    took_s, used_s, version = done.stdout.split()
    return _Rate(_EVENTS / float(took_s), float(used_s) / _EVENTS * 1e6, _EVENTS, version)


# ---- from Python


class _Clock:
    """Wall and processor time since it was made, for so many events."""

    def __init__(self) -> None:
        self._began, self._used = time.perf_counter(), time.process_time()

    def rate(self, paths: DatabasePaths, version: str) -> _Rate:
        took_s, used_s = time.perf_counter() - self._began, time.process_time() - self._used
        _check_count(paths, _EVENTS)
        return _Rate(_EVENTS / took_s, used_s / _EVENTS * 1e6, _EVENTS, version)


class _Executor(NamedTuple):
    connection: apsw.Connection | sqlite3.Connection
    sqlite: str


def _apsw_executor(paths: DatabasePaths, durability: str) -> _Executor:
    connection = connect(paths.database, durability)
    connection.wal_autocheckpoint(1000)  # SQLite's own, whatever the writer does instead
    return _Executor(connection, apsw.sqlite_lib_version())


def _sqlite3_executor(paths: DatabasePaths, durability: str) -> _Executor:
    with closing(connect(paths.database, durability)) as model:
        values = {name: model.pragma(name) for name in _PRAGMAS}
    connection = sqlite3.connect(paths.database, isolation_level=None)
    for name, value in values.items():
        connection.execute(f"PRAGMA {name} = {value}")
    return _Executor(connection, sqlite3.sqlite_version)


def _by_executemany(
    opened: Callable[[DatabasePaths, str], _Executor], durability: str, stream: _Stream, paths: DatabasePaths
) -> _Rate:
    connection, version = opened(paths, durability)
    fills_a_batch = MAX_RECORDS // 4
    with closing(connection):
        clock = _Clock()
        for at in range(0, len(stream.fills), fills_a_batch):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(QUERIES["insert_fill"], stream.fills[at : at + fills_a_batch])
            connection.executemany(QUERIES["insert_order_event"], stream.order_events[3 * at : 3 * (at + fills_a_batch)])
            connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint")
        return clock.rate(paths, version)


def _by_store(durability: str, stream: _Stream, paths: DatabasePaths) -> _Rate:
    payloads = [msgspec.msgpack.encode(record) for record in stream.records]
    stretches = []
    for at in range(0, _EVENTS, MAX_RECORDS):
        part = payloads[at : at + MAX_RECORDS]
        stretches.append(Stretch(stream.run_id, "bench", at + 1, part, decode_records(part)))
    with closing(Store(paths, durability)) as store:
        clock = _Clock()
        for stretch in stretches:
            store.append([stretch])
        store.checkpoint()
        return clock.rate(paths, apsw.sqlite_lib_version())


def _by_journal(durability: str, stream: _Stream, paths: DatabasePaths) -> _Rate:
    with closing(Store(paths, durability)) as store:
        about = About(store.database_id, stream.run_id, "bench", durability, os.getpid())
        path = paths.journal(stream.run_id)
        with closing(Journal(path, about, _EVENTS * _EVENT_MAX_BYTES)) as journal:
            for record in stream.records:
                journal.append(record)
        os.sync()  # as large as it is here, it must not be written out while the clock runs
        run = open_run(path, store)
        clock = _Clock()
        while run.committed < _EVENTS:
            batch = Batch()
            read_missing(run, batch)
            store.append(batch.stretches)
            run.advance()
        store.checkpoint()
        rate = clock.rate(paths, apsw.sqlite_lib_version())
        run.journal.close()
    return rate


# ---- the product


class _Seen(NamedTuple):
    """What one strategy saw."""

    began: float  # monotonic seconds, one clock for all processes
    acked: list[tuple[float, float]]  # when, how many events so far
    recorded: int
    waiting_s: float


def _by_writer(durability: str, workers: int, seconds: float, paths: DatabasePaths) -> _Rate:
    used: list[tuple[float, float]] = []  # when, the writer's processor time so far
    with private_writer(paths, durability):
        writer = psutil.Process(writer_pid(paths))
        arguments = [(paths, f"s{number}", durability, seconds, _PREMADE // workers) for number in range(workers)]
        seen: list[_Seen] = run_together(_strategy, arguments, lambda: used.append((time.monotonic(), cpu_s(writer))))
    end_writer(paths)
    recorded = sum(one.recorded for one in seen)
    _check_count(paths, recorded)
    since = max(one.began for one in seen) + _RAMP * seconds
    until = min(one.began for one in seen) + seconds
    acked = sum(_at(one.acked, until) - _at(one.acked, since) for one in seen)
    used_s = _at(used, until) - _at(used, since)
    waiting = sum(one.waiting_s for one in seen) / (workers * seconds)
    return _Rate(acked / (until - since), used_s / acked * 1e6, recorded, waiting=waiting)


def _strategy(begin: Begin, paths: DatabasePaths, name: str, durability: str, seconds: float, premade: int) -> _Seen:
    """One strategy's process."""
    recorder = Recorder.open(paths, name, durability=durability, may_start_writer=False)
    # The writer meets a run with its first record, which takes up to 0.1 s: a start's cost.
    recorder.record(RunStarted(name, "bench", time.time()))
    recorder.flush(_TIMEOUT_S)
    stream = endless(recorder.run_id)
    made = list(islice(stream, premade))
    begin()
    seen = _at_full_speed(recorder, chain(made, stream), seconds)
    recorder.close()
    return seen


def _at_full_speed(recorder: Recorder, stream: Iterator[Fill | OrderEvent], seconds: float) -> _Seen:
    before = recorder.committed_seq
    began = sampled = time.monotonic()
    acked = [(began, 0.0)]
    waiting_s = 0.0
    while (now := time.monotonic()) - began < seconds:
        if recorder.room_for_orders():
            _cycle(recorder, stream)
        else:
            recorder.wait(_LOOK_EVERY_S)
            waiting_s += time.monotonic() - now
        recorder.hear()
        if now - sampled >= _SAMPLE_EVERY_S:
            acked.append((time.monotonic(), recorder.committed_seq - before))
            sampled = now
    acked.append((time.monotonic(), recorder.committed_seq - before))
    recorder.flush(_TIMEOUT_S)
    return _Seen(began, acked, recorder.last_seq - before, waiting_s)


def _cycle(recorder: Recorder, stream: Iterator[Fill | OrderEvent]) -> None:
    recorder.begin_cycle()
    for record in islice(stream, _CYCLE):
        recorder.record(record)
    recorder.ship()


def _at(samples: Sequence[tuple[float, float]], moment: float) -> float:
    """What a rising count had come to at a moment, between two samples in proportion."""
    for (before, low), (after, high) in pairwise(samples):
        if moment <= after:
            return low + (high - low) * max(0.0, moment - before) / (after - before)
    return samples[-1][1]


def _check_count(paths: DatabasePaths, expected: int) -> None:
    with closing(apsw.Connection(str(paths.database), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        stored: Any = connection.execute("SELECT (SELECT count(*) FROM fills) + (SELECT count(*) FROM order_events)").get
    if stored != expected:
        raise SystemExit(f"{expected} events were written, {stored} are in {paths.database}: the figures are worthless")
