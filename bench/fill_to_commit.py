"""How long from recorded to committed, for how many strategies, at which rate?

Models W strategies on one database, each a process with Poisson arrivals of one fill to three order events, each event in a cycle
of its own. An event's time runs from its intended moment to the moment its strategy hears the ack, so it covers journal, link,
writer, commit (an fsync with durability `power`) and the way back. A strategy looks for acks about every 0.1 ms; that is in the
figures. At the rate `max` the strategies record 200,000 events as fast as their journals take them: then only `committed_per_s`
and `writer_us` mean anything.

Every row ends with a count: what was recorded must be in the database, or there is no row.
"""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

import apsw
import psutil

from bench.events import mixed
from bench.open_loop import arrivals, quantiles
from bench.options import MAX, Options, Row, rate_name
from bench.writer import wait_for_writer_to_leave, writer_pid
from horizon.paths import DatabasePaths
from horizon.recorder import Recorder
from horizon.records import RunStarted

_LOOK_EVERY_S = 1e-4
_UNPACED = 200_000  # events of a row at full speed, over all workers
_UNPACED_CYCLE = 64  # events of one cycle there
_TIMEOUT_S = 120.0


class _Measured(NamedTuple):
    """What one strategy saw."""

    latencies_ms: list[float]
    began: float  # monotonic seconds, one clock for all processes
    ended: float  # everything acknowledged


def measure(folder: Path, options: Options) -> list[Row]:
    rows = []
    for durability in options.durabilities:
        paths = DatabasePaths.of(folder / f"{durability}.db")
        with _writer(paths, durability) as writer:
            for workers in options.workers:
                for rate in options.rates:
                    rows.append(_row(paths, writer, workers, rate, options.seconds, durability))
    return rows


def _row(paths: DatabasePaths, writer: psutil.Process, workers: int, rate: float, seconds: float, durability: str) -> Row:
    rows_before, cpu_before = _rows_in(paths), _cpu_s(writer)
    measured = _run_strategies(paths, workers, rate, seconds, durability)
    recorded = sum(len(one.latencies_ms) for one in measured)
    stored = _rows_in(paths) - rows_before
    if stored != recorded:
        raise SystemExit(
            f"{recorded} events were recorded and acknowledged, {stored} are in {paths.database}: the figures are worthless"
        )
    latency = quantiles([value for one in measured for value in one.latencies_ms])
    took_s = max(one.ended for one in measured) - min(one.began for one in measured)
    return {
        "durability": durability,
        "workers": workers,
        "rate": rate_name(rate),
        "events": recorded,
        "committed_per_s": round(recorded / took_s),
        "p50_ms": round(latency.p50, 3),
        "p99_ms": round(latency.p99, 3),
        "p99.9_ms": round(latency.p999, 3),
        "max_ms": round(latency.max, 3),
        "writer_us": round((_cpu_s(writer) - cpu_before) / recorded * 1e6, 2),  # processor time per event
    }


def _run_strategies(paths: DatabasePaths, workers: int, rate: float, seconds: float, durability: str) -> list[_Measured]:
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(workers)
    processes, results = [], []
    for number in range(workers):
        result, theirs = context.Pipe(duplex=False)
        arguments = (
            paths,
            f"{rate_name(rate)}-{workers}-{number}",
            rate / workers,
            seconds,
            durability,
            number,
            together,
            theirs,
        )
        process = context.Process(target=_strategy, args=arguments)
        process.start()
        theirs.close()
        processes.append(process)
        results.append(result)
    measured = [result.recv() for result in results]
    for process in processes:
        process.join()
    return measured


def _strategy(
    paths: DatabasePaths,
    name: str,
    rate: float,
    seconds: float,
    durability: str,
    seed: int,
    together: Barrier,
    result: Connection,
) -> None:
    """One strategy's process."""
    recorder = Recorder.open(paths, name, durability=durability, may_start_writer=False)
    # The writer meets a run with its first record, which takes up to 0.1 s: a start's cost, not the road's.
    recorder.record(RunStarted(name, "bench", time.time()))
    recorder.flush(_TIMEOUT_S)
    together.wait(_TIMEOUT_S)
    unpaced = rate == MAX
    result.send(
        _at_full_speed(recorder, _UNPACED // together.parties) if unpaced else _paced(recorder, arrivals(rate, seconds, seed))
    )
    recorder.close()


def _paced(recorder: Recorder, due_after: list[float]) -> _Measured:
    records = mixed(recorder.run_id, len(due_after))
    waiting: deque[float] = deque()  # the intended times of what is not acknowledged
    latencies_ms: list[float] = []
    began = time.monotonic()
    for record, after in zip(records, due_after, strict=True):
        while (left := began + after - time.monotonic()) > 0:
            time.sleep(min(left, _LOOK_EVERY_S))
            _hear(recorder, waiting, latencies_ms)
        recorder.begin_cycle()
        recorder.record(record)
        recorder.ship()
        waiting.append(began + after)
    return _drained(recorder, waiting, latencies_ms, began)


def _at_full_speed(recorder: Recorder, count: int) -> _Measured:
    records = mixed(recorder.run_id, count)
    waiting: deque[float] = deque()
    latencies_ms: list[float] = []
    began = time.monotonic()
    for first in range(0, count, _UNPACED_CYCLE):
        recorder.begin_cycle()
        for record in records[first : first + _UNPACED_CYCLE]:
            waiting.append(time.monotonic())
            recorder.record(record)
        recorder.ship()
        _hear(recorder, waiting, latencies_ms)
        while not recorder.room_for_orders():
            time.sleep(_LOOK_EVERY_S)
            _hear(recorder, waiting, latencies_ms)
    return _drained(recorder, waiting, latencies_ms, began)


def _drained(recorder: Recorder, waiting: deque[float], latencies_ms: list[float], began: float) -> _Measured:
    until = time.monotonic() + _TIMEOUT_S
    while waiting:
        if time.monotonic() > until:
            raise SystemExit(f"{len(waiting)} events were not acknowledged within {_TIMEOUT_S:g} s")
        time.sleep(_LOOK_EVERY_S)
        _hear(recorder, waiting, latencies_ms)
    return _Measured(latencies_ms, began, time.monotonic())


def _hear(recorder: Recorder, waiting: deque[float], latencies_ms: list[float]) -> None:
    recorder.hear()
    now = time.monotonic()
    while len(waiting) > recorder.unacked:
        latencies_ms.append((now - waiting.popleft()) * 1000)


@contextmanager
def _writer(paths: DatabasePaths, durability: str) -> Iterator[psutil.Process]:
    """A private writer: a run of ours keeps it while the block lasts; its files may be removed when it has left."""
    keeper = Recorder.open(paths, "keeper", durability=durability)
    try:
        yield psutil.Process(writer_pid(paths))
    finally:
        keeper.close()
        wait_for_writer_to_leave(paths)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _rows_in(paths: DatabasePaths) -> int:
    connection = apsw.Connection(f"file:{paths.database}?mode=ro", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        (count,) = next(connection.execute("SELECT (SELECT count(*) FROM fills) + (SELECT count(*) FROM order_events)"))
        return int(count)
    finally:
        connection.close()
