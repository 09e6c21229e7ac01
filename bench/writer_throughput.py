"""How many events a second does the writer commit when its strategies never stop, and what would SQLite take at most?

Models W strategies on one database that record one fill to three order events as fast as their journals take them. The first quarter of
a row only fills the journals; `per_s` is what was acknowledged in the rest, while every strategy still recorded. `waiting` is the share of
that time in which a strategy waited for room in its journal: where it is small, the figure is the strategies' and not the writer's.
Every run is counted: what was recorded must be in the database, or there is no row.

What it is compared with, in the same run, one after the other in each repeat, on fresh databases that the product made, with its
statements and its pragmas, in transactions of 1,000 events, checkpoints included:

- `C, all`: ceiling.c, prepared statements; with what the writer keeps beside the rows (open orders, cursor). The ceiling.
- `C, rows only`: the same without these.
- `apsw executemany`, `sqlite3 executemany`: rows only, as tuples that were made before.
- `Store.append`: the writer's own commit, with decoded records that were made before: no journal, no socket, no decoding.

C and the sqlite3 module use the system's SQLite, apsw brings its own: `sqlite` says which. `of_c` is the median of the ratios within
each repeat.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain, islice, pairwise
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple

import apsw
from msgspec.structs import astuple

from bench.events import endless, mixed
from bench.machine import sync_cost_us
from bench.options import Options, Row
from bench.repeats import paired_ratio, spread
from bench.writer import wait_for_writer_to_leave, writer_pid
from horizon.ids import new_run_id
from horizon.lifeline import die_with_parent
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.records import Fill, OrderEvent, RunStarted
from horizon.store.append import Store, Stretch
from horizon.store.connection import connect
from horizon.store.sql import QUERIES
from horizon.writer.batch import MAX_RECORDS

_EVENTS = 400_000  # of a comparison: some 200 MB of WAL, a hundred checkpoints
_PREMADE = 400_000  # records of a row that are made before the clock starts: making one costs as much as recording it
_CYCLE = 64  # events that a strategy records in one cycle
_RAMP = 0.25  # share of a row that is not counted
_LOOK_EVERY_S = 1e-3
_SAMPLE_EVERY_S = 0.02
_TIMEOUT_S = 300.0
_PRAGMAS = ("journal_mode", "synchronous", "cache_size", "temp_store", "mmap_size")
_STATEMENTS = ("insert_fill", "insert_order_event", "close_order", "advance_run", "set_meta")
_CEILING = "C, all"


class _Rate(NamedTuple):
    per_s: float
    events: int
    sqlite: str = apsw.sqlite_lib_version()
    waiting: float = 0.0


def measure(folder: Path, options: Options) -> list[Row]:
    compiled = _compiled_ceiling(folder)
    return [row for durability in options.durabilities for row in _rows(folder, options, durability, compiled)]


def _rows(folder: Path, options: Options, durability: str, compiled: Path | None) -> list[Row]:
    ways: dict[str, Callable[[DatabasePaths], _Rate]] = {}
    if compiled is not None:
        ways[_CEILING] = lambda paths: _in_c(compiled, paths, durability, everything=True)
        ways["C, rows only"] = lambda paths: _in_c(compiled, paths, durability, everything=False)
    ways["apsw executemany"] = lambda paths: _by_executemany(_apsw_executor(paths, durability))
    ways["sqlite3 executemany"] = lambda paths: _by_executemany(_sqlite3_executor(paths, durability))
    ways["Store.append"] = lambda paths: _by_store(paths, durability)
    for workers in options.workers:
        ways[f"Horizon, {workers} workers"] = partial(_by_writer, workers=workers, seconds=options.seconds, durability=durability)
    measured: dict[str, list[_Rate]] = {name: [] for name in ways}
    syncs_us = []
    for repeat in range(options.repeats):
        syncs_us.append(sync_cost_us(folder)["p50"])
        for name, way in ways.items():
            place = folder / f"{durability}-{repeat}"
            place.mkdir()
            paths = DatabasePaths.of(place / "horizon.db")
            Store(paths, durability).close()
            measured[name].append(way(paths))
            shutil.rmtree(place)
    ceiling = [one.per_s for one in measured.get(_CEILING, [])]
    return [
        {
            "durability": durability,
            "way": name,
            "sqlite": rates[0].sqlite,
            "events": sum(one.events for one in rates),
            **spread("per_s", [one.per_s for one in rates]),
            "of_c": paired_ratio([one.per_s for one in rates], ceiling) if ceiling else "-",
            "waiting": round(max(one.waiting for one in rates), 2),
            **spread("fdatasync_us", syncs_us),
        }
        for name, rates in measured.items()
    ]


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


def _in_c(program: Path, paths: DatabasePaths, durability: str, *, everything: bool) -> _Rate:
    with closing(connect(paths.database, durability)) as connection:
        pragmas = "".join(f"PRAGMA {name} = {connection.pragma(name)};" for name in _PRAGMAS)
    statements = [QUERIES[name] for name in _STATEMENTS]
    command: list[str] = [
        str(program),
        str(paths.database),
        str(_EVENTS),
        str(MAX_RECORDS),
        str(int(everything)),
        pragmas,
        *statements,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    _check_count(paths, _EVENTS)
    took_s, version = done.stdout.split()
    return _Rate(_EVENTS / float(took_s), _EVENTS, version)


# ---- from Python


class _Executor(NamedTuple):
    connection: apsw.Connection | sqlite3.Connection
    paths: DatabasePaths
    sqlite: str


def _apsw_executor(paths: DatabasePaths, durability: str) -> _Executor:
    connection = connect(paths.database, durability)
    connection.wal_autocheckpoint(1000)  # SQLite's own, whatever the writer does instead
    return _Executor(connection, paths, apsw.sqlite_lib_version())


def _sqlite3_executor(paths: DatabasePaths, durability: str) -> _Executor:
    with closing(connect(paths.database, durability)) as model:
        values = {name: model.pragma(name) for name in _PRAGMAS}
    connection = sqlite3.connect(paths.database, isolation_level=None)
    for name, value in values.items():
        connection.execute(f"PRAGMA {name} = {value}")
    return _Executor(connection, paths, sqlite3.sqlite_version)


def _by_executemany(executor: _Executor) -> _Rate:
    connection, paths, version = executor
    run_id = new_run_id()
    fills: list[tuple[Any, ...]] = []
    events: list[tuple[Any, ...]] = []
    for seq, record in enumerate(mixed(run_id, _EVENTS), start=1):
        row = tuple(getattr(value, "value", value) for value in astuple(record))
        if isinstance(record, Fill):
            fills.append((*row, record.timestamp, "bench", run_id, seq, len(fills) + 1))
        else:
            events.append((*row, "bench", run_id, seq))
    fills_a_batch = MAX_RECORDS // 4
    with closing(connection):
        began = time.perf_counter()
        for at in range(0, len(fills), fills_a_batch):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(QUERIES["insert_fill"], fills[at : at + fills_a_batch])
            connection.executemany(QUERIES["insert_order_event"], events[3 * at : 3 * (at + fills_a_batch)])
            connection.execute("COMMIT")
        took_s = time.perf_counter() - began
    _check_count(paths, _EVENTS)
    return _Rate(_EVENTS / took_s, _EVENTS, version)


def _by_store(paths: DatabasePaths, durability: str) -> _Rate:
    run_id = new_run_id()
    records = mixed(run_id, _EVENTS)
    with closing(Store(paths, durability)) as store:
        began = time.perf_counter()
        for at in range(0, _EVENTS, MAX_RECORDS):
            batch = records[at : at + MAX_RECORDS]
            store.append([Stretch(run_id, "bench", at + 1, [b""] * len(batch), batch)])
        took_s = time.perf_counter() - began
    _check_count(paths, _EVENTS)
    return _Rate(_EVENTS / took_s, _EVENTS)


# ---- the product


class _Seen(NamedTuple):
    """What one strategy saw."""

    began: float  # monotonic seconds, one clock for all processes
    acked: list[tuple[float, int]]  # when, how many events so far
    recorded: int
    waiting_s: float


def _by_writer(paths: DatabasePaths, workers: int, seconds: float, durability: str) -> _Rate:
    seen = _run_strategies(paths, workers, seconds, durability)
    os.kill(writer_pid(paths), signal.SIGTERM)  # a private one would wait for more
    wait_for_writer_to_leave(paths)
    recorded = sum(one.recorded for one in seen)
    _check_count(paths, recorded)
    since = max(one.began for one in seen) + _RAMP * seconds
    until = min(one.began for one in seen) + seconds
    acked = sum(_acked_at(one.acked, until) - _acked_at(one.acked, since) for one in seen)
    waiting = sum(one.waiting_s for one in seen) / (workers * seconds)
    return _Rate(acked / (until - since), recorded, waiting=waiting)


def _run_strategies(paths: DatabasePaths, workers: int, seconds: float, durability: str) -> list[_Seen]:
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(workers)
    processes, results = [], []
    for number in range(workers):
        result, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_strategy, args=(paths, f"s{number}", seconds, durability, together, theirs))
        process.start()
        theirs.close()
        processes.append(process)
        results.append(result)
    seen = [result.recv() for result in results]
    for process in processes:
        process.join()
    return seen


def _strategy(paths: DatabasePaths, name: str, seconds: float, durability: str, together: Barrier, result: Connection) -> None:
    """One strategy's process."""
    die_with_parent(signal.SIGKILL)
    recorder = Recorder.open(paths, name, durability=durability)
    # The writer meets a run with its first record, which takes up to 0.1 s: a start's cost.
    recorder.record(RunStarted(name, "bench", time.time()))
    recorder.flush(_TIMEOUT_S)
    stream = endless(recorder.run_id)
    premade = list(islice(stream, _PREMADE // together.parties))
    gc.collect()
    gc.freeze()
    together.wait(_TIMEOUT_S)
    result.send(_at_full_speed(recorder, chain(premade, stream), seconds))
    recorder.close()


def _at_full_speed(recorder: Recorder, stream: Iterator[Fill | OrderEvent], seconds: float) -> _Seen:
    before = recorder.committed_seq
    began = sampled = time.monotonic()
    acked = [(began, 0)]
    waiting_s = 0.0
    while (now := time.monotonic()) - began < seconds:
        if recorder.room_for_orders():
            _cycle(recorder, stream)
        else:
            time.sleep(_LOOK_EVERY_S)
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


def _acked_at(acked: Sequence[tuple[float, int]], moment: float) -> float:
    """How many were acknowledged at a moment, between two samples in proportion."""
    for (before, low), (after, high) in pairwise(acked):
        if moment <= after:
            return low + (high - low) * max(0.0, moment - before) / (after - before)
    return acked[-1][1]


def _check_count(paths: DatabasePaths, expected: int) -> None:
    with closing(apsw.Connection(str(paths.database), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        stored: Any = connection.execute("SELECT (SELECT count(*) FROM fills) + (SELECT count(*) FROM order_events)").get
    if stored != expected:
        raise SystemExit(f"{expected} events were written, {stored} are in {paths.database}: the figures are worthless")
