"""How long from the start of a killed strategy to its first order, with how much history behind it and how much left to drain?

Models a strategy alone on a database: so many events of history, in runs of 10,000 with a snapshot at the end of each, and a last run
that was killed with so many events in its journal that no writer has seen. Both processes were killed, so a writer is started too.

- `writer_ms`: until the new run is let in: a writer is started, opens the database, drains the journal.
- `recover_ms`: what the database says is read and folded: snapshot, fills after it, open orders.
- `start_ms`: all of it, from `Engine(...)` to the end of `start_run`.

Left out is the start of Python itself. Median and worst of three starts; only what is left to drain may make a difference.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from bench.events import mixed
from bench.options import Options, Row
from bench.writer import wait_for_writer_to_leave
from horizon.engine import Engine
from horizon.ids import new_run_id
from horizon.journal import DEFAULT_BYTES, About, Journal
from horizon.locks import FileLock
from horizon.paths import DatabasePaths
from horizon.positions import Book
from horizon.records import Fill, PositionSnapshot, Record, RunStarted
from horizon.store.append import Store, Stretch

_HISTORIES = (10_000, 100_000, 1_000_000)
_UNDRAINED = (0, 10_000)
_RUN_EVENTS = 10_000
_BATCH = 1000
_STARTS = 3
_STRATEGY = "bench"


def measure(folder: Path, options: Options) -> list[Row]:
    rows = []
    paths = DatabasePaths.of(folder / "history.db")
    written = 0
    for history in _HISTORIES:
        _write_history(paths, written, history)
        written = history
        rows += [_row(paths, history, undrained) for undrained in _UNDRAINED]
    return rows


def _row(paths: DatabasePaths, history: int, undrained: int) -> Row:
    starts = [_start(paths, undrained) for _ in range(_STARTS)]
    writer, recover, start = (sorted(one) for one in zip(*starts, strict=True))
    return {
        "history": history,
        "undrained": undrained,
        "writer_ms": round(statistics.median(writer), 1),
        "recover_ms": round(statistics.median(recover), 1),
        "start_ms": round(statistics.median(start), 1),
        "worst_ms": round(start[-1], 1),
    }


def _start(paths: DatabasePaths, undrained: int) -> tuple[float, float, float]:
    """Milliseconds until the run is let in, for its recovery, and for all of its start."""
    _leave_journal(paths, undrained)
    began = time.monotonic()
    engine = Engine(db_path=paths.database, strategy=_STRATEGY)
    let_in = time.monotonic()
    engine.recover_state()
    recovered = time.monotonic()
    engine.start_run(_STRATEGY)
    started = time.monotonic()
    engine.close()
    wait_for_writer_to_leave(paths)
    return (let_in - began) * 1000, (recovered - let_in) * 1000, (started - began) * 1000


def _write_history(paths: DatabasePaths, first: int, last: int) -> None:
    """Commit events as the writer does; every run's snapshot includes all fills before it."""
    with closing(Store(paths)) as store:
        book = Book()
        for _ in range(first, last, _RUN_EVENTS):
            run_id = new_run_id()
            events = mixed(run_id, _RUN_EVENTS)
            for event in events:
                if isinstance(event, Fill):
                    book.apply(event)
            start = RunStarted(_STRATEGY, "paper", time.time(), None, os.getpid(), last)
            _commit(store, run_id, [start, *events, PositionSnapshot(time.time(), book.snapshot())])


def _commit(store: Store, run_id: str, records: list[Record]) -> None:
    for at in range(0, len(records), _BATCH):
        part = records[at : at + _BATCH]
        store.append([Stretch(run_id, _STRATEGY, at + 1, [b""] * len(part), part)])


def _leave_journal(paths: DatabasePaths, events: int) -> None:
    """What a killed run leaves: a journal that nobody has drained, and a free lock."""
    if not events:
        return
    with closing(Store(paths)) as store:
        database_id = store.database_id
    lock = FileLock(paths.strategy_lock(_STRATEGY))
    if not lock.take():
        raise SystemExit(f"{lock.path} is held: another benchmark runs here")
    run_id = new_run_id()
    journal = Journal(paths.journal(run_id), About(database_id, run_id, _STRATEGY, "process", os.getpid()), DEFAULT_BYTES)
    for event in mixed(run_id, events):
        journal.append(event)
    journal.close()
    lock.release()
